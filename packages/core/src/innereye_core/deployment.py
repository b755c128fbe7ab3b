"""The way from a training run to a registered model: select, package, register, and all three as deploy.

These functions are the Python API, and what the command line calls. Each takes a run as a reference (a folder) or as an
opened :class:`~innereye_core.model.Run`, and optionally a :class:`~innereye_core.host.Host`; the installed plugins
otherwise.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core.candidates import has_candidates
from innereye_core.errors import InnerEyeError, InputError, MissingPluginError, UsageError
from innereye_core.host import Host, installed_host
from innereye_core.model import (
    FINAL_ENSEMBLE_MODEL,
    FINAL_MODEL,
    Package,
    PackageKind,
    RegisteredModel,
    Registration,
    Run,
    Selection,
)
from innereye_core.progress import Silent
from innereye_core.publishing import refuse_existing
from innereye_core.selecting import DEFAULT_POLICY, select_candidate

if TYPE_CHECKING:
    from innereye_core.config import ModelConfig
    from innereye_core.contract.providers import Progress, Registry, RunSource
    from innereye_core.packaging.plan import MemberSource, PackageOptions

_log = logging.getLogger(__name__)

REGISTRY_VARIABLE = "INNEREYE_REGISTRY"

FOLDS_PROPERTY = "number_of_cross_validation_splits"
"""Tag or property of a parent run that says how many folds there must be."""

_UNUSABLE = {
    "failed",
    "canceled",
    "cancelled",
    "notstarted",
    "queued",
    "preparing",
    "starting",
    "running",
    "finalizing",
}
"""Statuses, in lower case, of folds whose checkpoints are not what the training is meant to end with."""


@dataclass(frozen=True)
class SelectionOptions:
    """How the candidate is selected; the defaults are the command line's."""

    epochs_to_test: tuple[int, ...] | None = None
    """The only epochs to consider; None: those of the config, else all that have a checkpoint."""
    policy: str = DEFAULT_POLICY
    extra_code_directory: Path | None = None
    """Folder with the network's own code; None: the one that the config names, if any."""


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
    """None: ``INNEREYE_REGISTRY``, else the registry of the run's source."""


@dataclass(frozen=True)
class Deployment:
    """A registered model with the package that it is, and the selection that it came from."""

    model: RegisteredModel
    package: Package
    run: Run
    selections: tuple[Selection, ...]
    """One, or one per fold."""
    children: tuple[Deployment, ...] = ()
    """The folds' own deployments, where this is an ensemble."""


def open_run(run: str | Path | Run, host: Host) -> Run:
    """Open a run by its reference.

    Raises:
        InputError: no run source knows it.
    """
    if isinstance(run, Run):
        return run
    for source in host.run_sources():
        found = source.open(str(run))
        if found is not None:
            return found
    raise InputError(f"{run}: no such run; give the folder that has model.yaml and checkpoints/")


def select(
    run: str | Path | Run,
    options: SelectionOptions | None = None,
    *,
    host: Host | None = None,
    progress: Progress | None = None,
) -> Selection:
    """Select the candidate of a run that is to be deployed.

    Raises:
        InputError: there is nothing to select from, or candidates cannot be evaluated.
        UsageError: there is no such policy.
    """
    host = host or installed_host()
    return _selected(open_run(run, host), options or SelectionOptions(), host, progress).selection


def package(
    run: str | Path | Run,
    selection: SelectionOptions | None = None,
    packaging: PackageOptions | None = None,
    *,
    output: str | Path | None = None,
    ensemble: bool = False,
    allow_missing_folds: bool = False,
    host: Host | None = None,
    progress: Progress | None = None,
) -> Package:
    """Select, and make ``final_model/``, or ``final_ensemble_model/`` from the folds of a parent run.

    Args:
        run: the run; with ``ensemble`` the parent run.
        selection: how candidates are selected.
        packaging: how packages are made.
        output: folder that shall hold the package; None: the run's.
        ensemble: make the ensemble of the run's folds.
        allow_missing_folds: make it even where folds are missing.
        host: what the plugins offer; None: the installed ones.
        progress: where to say how far it is; None: nowhere.

    Raises:
        InputError, IntegrityError, RegistryError, StorageError: see
            :func:`innereye_core.packaging.making.make_package`.
    """
    host = host or installed_host()
    opened = open_run(run, host)
    kind: PackageKind = FINAL_ENSEMBLE_MODEL if ensemble else FINAL_MODEL
    target = _target(opened, kind, output)
    replace = packaging is not None and packaging.replace
    if not replace:
        refuse_existing(target)
    folds = _folds(opened, allow_missing_folds, host) if ensemble else (opened,)
    sources = [_selected(fold, selection or SelectionOptions(), host, progress) for fold in folds]
    return _packaged(sources, opened, kind, target, packaging, host)


def register(
    package: str | Path | Package,
    options: RegistrationOptions | None = None,
    *,
    run: Run | None = None,
    host: Host | None = None,
) -> RegisteredModel:
    """Register a package as the next version of its name.

    The run that it was made from gets the tag ``model_id``, if it is given, or if the package still lies in its folder.

    Raises:
        InputError: the folder is no package.
        IntegrityError: a file is missing or changed.
        RegistryError: the registry refuses or cannot be reached.
        StorageError: the disk is full or not writable.
    """
    from innereye_core.manifest import open_package

    host = host or installed_host()
    opened = package if isinstance(package, Package) else open_package(Path(package))
    run = run or _run_around(opened, host)
    options = options or RegistrationOptions()
    _refuse_impossible(options)
    registry = default_registry(host, options.registry, run)
    model = registry.register(opened, _registration(opened, options, run))
    if run is not None:
        try:
            _source_of(run, host).add_tags(run, {"model_id": model.id})
        except InnerEyeError as error:  # the version is there, and its number must reach the user
            _log.warning("%s is registered, but its run does not get the tag model_id: %s", model.id, error)
            host.failed_observers.append(f"tag of run {run.id}")
    host.after_registration(model, opened)
    return model


def deploy(
    run: str | Path | Run,
    selection: SelectionOptions | None = None,
    packaging: PackageOptions | None = None,
    registration: RegistrationOptions | None = None,
    *,
    output: str | Path | None = None,
    ensemble: bool = False,
    allow_missing_folds: bool = False,
    host: Host | None = None,
    progress: Progress | None = None,
) -> Deployment:
    """Select, package and register a run, and tag it with ``model_id``.

    With ``ensemble``, each fold of the parent run deploys its own ``final_model`` first, and the ensemble of the folds'
    selected checkpoints becomes ``final_ensemble_model``, registered on the parent run. Nothing is registered before
    every package is complete.

    Raises:
        The errors of :func:`package` and :func:`register`.
    """
    host = host or installed_host()
    opened = open_run(run, host)
    registration = registration or RegistrationOptions()
    _refuse_impossible(registration)
    default_registry(host, registration.registry, opened)  # a registry that is not there is refused before the work
    replace = packaging is not None and packaging.replace
    folds = _folds(opened, allow_missing_folds, host) if ensemble else ()
    places: list[tuple[Run, PackageKind, Path]] = [
        (fold, FINAL_MODEL, _target(fold, FINAL_MODEL, None if output is None else Path(output) / str(fold.fold)))
        for fold in folds
    ]
    kind: PackageKind = FINAL_ENSEMBLE_MODEL if ensemble else FINAL_MODEL
    target = _target(opened, kind, output)
    for place in (*(path for _, _, path in places), target):
        if not replace:
            refuse_existing(place)
    sources = [_selected(one, selection or SelectionOptions(), host, progress) for one in folds or (opened,)]
    packages = [
        _packaged([source], fold, fold_kind, place, packaging, host)
        for source, (fold, fold_kind, place) in zip(sources, places, strict=False)
    ]
    whole = _packaged(sources, opened, kind, target, packaging, host)
    children = tuple(
        Deployment(register(made, registration, run=fold, host=host), made, fold, (source.selection,))
        for source, (fold, _, _), made in zip(sources, places, packages, strict=False)
    )
    model = register(whole, registration, run=opened, host=host)
    return Deployment(model, whole, opened, tuple(source.selection for source in sources), children)


def default_registry(host: Host, name: str | None = None, run: Run | None = None) -> Registry:
    """The registry of this name; else ``INNEREYE_REGISTRY``, else that of the run's source, else of the current run.

    Raises:
        UsageError: there is no such registry.
        MissingPluginError: its plugin is not installed.
    """
    chosen = name or os.environ.get(REGISTRY_VARIABLE)
    if not chosen:
        current = run or next((found for source in host.run_sources() if (found := source.current())), None)
        chosen = "local" if current is None else _source_of(current, host).registry
    return host.registry(chosen)


# --- selecting --------------------------------------------------------------------------------------------------------


def _selected(run: Run, options: SelectionOptions, host: Host, progress: Progress | None) -> MemberSource:
    from innereye_core.packaging.plan import MemberSource

    config, extra_code = _config_of(run, options.extra_code_directory)
    selection = select_candidate(
        run, config, extra_code, options.policy, options.epochs_to_test, host, progress or Silent()
    )
    return MemberSource(run, config, extra_code, selection)


def _config_of(run: Run, extra_code_directory: Path | None) -> tuple[ModelConfig, Path | None]:
    """A run's model config, or else its parent's, and the folder of its extra code."""
    from innereye_core.config_files import MODEL_FILE, read_model_config

    home = run.folder
    if run.inherits_from is not None and not (home / MODEL_FILE).is_file():
        home = run.inherits_from
    config = read_model_config(home / MODEL_FILE)
    folder = extra_code_directory
    if folder is None and config.extra_code_directory is not None:
        folder = home / config.extra_code_directory
        if not folder.resolve().is_relative_to(home.resolve()):
            raise InputError(f"{home / MODEL_FILE}: extra_code_directory: {folder} links out of the run's folder")
    if folder is not None and not folder.is_dir():
        raise InputError(f"{folder}: no such extra code directory")
    return config, None if folder is None else folder.resolve()


def _folds(parent: Run, allow_missing: bool, host: Host) -> tuple[Run, ...]:
    """The usable folds of a parent run; all of them, unless missing ones are allowed."""
    formats = host.checkpoint_formats()
    if not formats:
        raise MissingPluginError(
            "no installed plugin reads checkpoints: pip install innereye-imaging innereye-segmentation"
        )
    children = {int(child.fold): child for child in _source_of(parent, host).children(parent) if child.fold is not None}
    if not children:
        raise InputError(f"{parent.folder}: has no child runs 0, 1, …, so there is nothing to make an ensemble of")
    stated = parent.properties.get(FOLDS_PROPERTY) or parent.tags.get(FOLDS_PROPERTY) or "0"
    count = max(int(stated) if stated.isdigit() else 0, max(children) + 1)
    missing = {}
    for number in range(count):
        child = children.get(number)
        if child is None:
            missing[number] = "is not there"
        elif child.status.lower() in _UNUSABLE:
            missing[number] = f"is {child.status}"
        elif not has_candidates(child, formats):
            missing[number] = "has no checkpoint"
    if missing:
        what = ", ".join(f"fold {number} {reason}" for number, reason in missing.items())
        if not allow_missing:
            raise InputError(f"{parent.folder}: {what}; finish it, or pass --allow-missing-folds")
        _log.warning("%s: ensemble without all folds: %s", parent.folder, what)
    usable = tuple(children[number] for number in sorted(children) if number not in missing)
    if len(usable) < 2:
        raise InputError(f"{parent.folder}: an ensemble needs at least two folds, and there is {len(usable)}")
    return usable


# --- packaging --------------------------------------------------------------------------------------------------------


def _target(run: Run, kind: PackageKind, output: str | Path | None) -> Path:
    return (run.folder if output is None else Path(output).resolve()) / kind


def _packaged(
    sources: Sequence[MemberSource],
    run: Run,
    kind: PackageKind,
    target: Path,
    options: PackageOptions | None,
    host: Host,
) -> Package:
    from innereye_core.packaging.making import make_package
    from innereye_core.packaging.plan import PackageOptions

    made = make_package(sources, run, kind, target, options or PackageOptions(), host)
    host.after_package(made)
    return made


# --- registering ------------------------------------------------------------------------------------------------------


def _refuse_impossible(options: RegistrationOptions) -> None:
    """Say before any work what no registry would take."""
    from innereye_core.config import MODEL_NAME_PATTERN

    if options.name is not None and re.fullmatch(MODEL_NAME_PATTERN, options.name) is None:
        raise UsageError(
            f"--name {options.name!r} cannot be the name of a model; use letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit, 255 at most"
        )
    if "package_digest" in (options.properties or {}):
        raise UsageError("--property package_digest is the digest of the package itself; leave it out")


def _registration(package: Package, options: RegistrationOptions, run: Run | None) -> Registration:
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
    scores = [member.score for member in manifest.members if member.score is not None]
    if scores and len(scores) == len(manifest.members):
        properties["validation_dice"] = ",".join(f"{score:.6f}" for score in scores)
    return Registration(
        name=options.name or manifest.model_name,
        tags={**tags, **(options.tags or {})},
        properties={**properties, **(options.properties or {})},
        description=_description(package) if options.description is None else options.description,
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


def _source_of(run: Run, host: Host) -> RunSource:
    return next(source for source in host.run_sources() if source.name == run.source)
