"""Registers packages: in which registry, and under which name, tags, properties and description."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core.errors import InnerEyeError, UsageError
from innereye_core.host import Host, installed_host
from innereye_core.model import FINAL_ENSEMBLE_MODEL, Package, RegisteredModel, Registration, Run
from innereye_core.progress import Silent
from innereye_core.runs import current_run, open_run, source_of
from innereye_core.selecting import DEFAULT_POLICY

if TYPE_CHECKING:
    from innereye_core.contract.providers import Progress, Registry

_log = logging.getLogger(__name__)

REGISTRY_VARIABLE = "INNEREYE_REGISTRY"

_OF_THE_RUN = ("experiment", "dataset", "source_commit")
"""Properties of a run that its models get, where the run has them."""


@dataclass(frozen=True)
class RegistrationOptions:
    """What a package is registered as, beyond what its manifest and run say."""

    name: str | None = None
    """None: the model's name in the config."""
    tags: Mapping[str, str] | None = None
    properties: Mapping[str, str] | None = None
    description: str | None = None
    """None: which epoch was chosen, and how well it did."""
    registry: str | None = None
    """None: ``INNEREYE_REGISTRY``, else the registry of the current run, else of the run's source."""


def register(
    package: str | Path | Package,
    options: RegistrationOptions | None = None,
    *,
    run: Run | None = None,
    host: Host | None = None,
    progress: Progress | None = None,
) -> RegisteredModel:
    """Register a package as the next version of its name.

    The run gets the tag ``model_id``: the one that is given, else the run that this process is part of, else the one in
    whose folder the package still lies.

    Raises:
        InputError: the folder is no package.
        IntegrityError: a file is missing or changed.
        RegistryError: the registry refuses or cannot be reached.
        StorageError: the disk is full or not writable.
    """
    from innereye_core.manifest import open_package

    host = host or installed_host()
    opened = package if isinstance(package, Package) else open_package(Path(package))
    run = run or current_run(host) or _run_around(opened, host)
    options = options or RegistrationOptions()
    refuse_impossible(options)
    registry = default_registry(host, options.registry, run)
    model = registry.register(opened, registration_of(opened, options, run), progress or Silent())
    if run is not None:
        try:
            source_of(run, host).add_tags(run, {"model_id": model.id})
        except InnerEyeError as error:  # the version is there, and its number must reach the user
            _log.warning("%s is registered, but its run does not get the tag model_id: %s", model.id, error)
            host.failed_observers.append(f"tag of run {run.id}")
    host.after_registration(model, opened)
    return model


def default_registry(host: Host, name: str | None = None, run: Run | None = None) -> Registry:
    """The registry of this name; else ``INNEREYE_REGISTRY``, else that of the current run, else of the run's source.

    Raises:
        UsageError: there is no such registry.
        MissingPluginError: its plugin is not installed.
    """
    chosen = name or os.environ.get(REGISTRY_VARIABLE)
    if not chosen:
        current = current_run(host) or run
        chosen = "local" if current is None else source_of(current, host).registry
    return host.registry(chosen)


def refuse_impossible(options: RegistrationOptions) -> None:
    """Say before any work what no registry would take.

    Raises:
        UsageError: the name is no name of a model, or the digest of the package is stated.
    """
    from innereye_core.config import MODEL_NAME_PATTERN

    if options.name is not None and re.fullmatch(MODEL_NAME_PATTERN, options.name) is None:
        raise UsageError(
            f"--name {options.name!r} cannot be the name of a model; use letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit, 255 at most"
        )
    if "package_digest" in (options.properties or {}):
        raise UsageError("--property package_digest is the digest of the package itself; leave it out")


def registration_of(package: Package, options: RegistrationOptions, run: Run | None) -> Registration:
    """What a package is registered as, from its manifest, its run, and what the caller says, in this order."""
    manifest = package.manifest
    is_ensemble = manifest.kind == FINAL_ENSEMBLE_MODEL
    tags = {key: value for key, value in (run.tags if run is not None else {}).items() if key != "model_id"}
    tags["is_ensemble"] = str(is_ensemble)
    if run is not None and run.parent is not None:
        tags["parent_run_id"] = run.parent
    if run is not None and run.fold is not None:
        tags["cross_validation_split_index"] = run.fold
    properties = {
        "run_id": manifest.run.id,
        "epoch": ",".join(str(member.epoch) for member in manifest.members),
        "package_digest": package.digest,
    }
    if run is not None:
        properties |= {key: run.properties[key] for key in _OF_THE_RUN if key in run.properties}
    scores = [member.score for member in manifest.members if member.score is not None]
    if scores and len(scores) == len(manifest.members):
        properties["validation_dice"] = ",".join(f"{score:.6f}" for score in scores)
    return Registration(
        name=options.name or manifest.model_name,
        tags={**tags, **(options.tags or {})},
        properties={**properties, **(options.properties or {})},
        description=_description(package) if options.description is None else options.description,
        run=run,
    )


def _description(package: Package) -> str:
    """InnerEye's sentence about the best epoch, or what is true instead."""
    members = package.manifest.members
    if len(members) > 1:
        folds = ", ".join(
            f"fold {member.fold} epoch {member.epoch}" + ("" if member.score is None else f" (Dice {member.score:.4f})")
            for member in members
        )
        return f"Ensemble of {len(members)} cross-validation folds: {folds}."
    member = members[0]
    available = f"(out of {member.candidates} epochs available)"
    if member.score is None:
        return f"Epoch {member.epoch} was chosen by policy {member.policy} {available}, without evaluating it."
    if member.policy == DEFAULT_POLICY:
        chosen = f"Epoch {member.epoch} has best validation set metrics {available}."
    else:
        chosen = f"Epoch {member.epoch} was chosen by policy {member.policy} {available}."
    return f"{chosen} Validation set Dice: {member.score:.4f}."


def _run_around(package: Package, host: Host) -> Run | None:
    """The run in whose folder the package lies, if it is the run that the package was made from."""
    from innereye_core.builtin.runs import RUN_FILE

    folder = package.folder.resolve().parent
    if not (folder / RUN_FILE).is_file():
        return None
    run = open_run(folder, host)
    return run if run.id == package.manifest.run.id else None
