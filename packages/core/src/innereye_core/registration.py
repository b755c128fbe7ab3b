"""What a package is registered as: name, tags, properties, description."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from innereye_core.errors import UsageError
from innereye_core.model import FINAL_ENSEMBLE_MODEL, Package, Registration, Run
from innereye_core.selecting import DEFAULT_POLICY


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
