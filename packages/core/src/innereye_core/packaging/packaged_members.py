"""Reads back what a package was made from, so that folds that were packaged elsewhere can become an ensemble."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from innereye_core.config_files import INFERENCE_CONFIG_FILE, PackagedConfig, read_inference_config, read_json_object
from innereye_core.errors import InputError
from innereye_core.model import (
    FINAL_MODEL,
    Candidate,
    MemberRecord,
    Package,
    Run,
    ScoredCandidate,
    Selection,
    SubjectScore,
)
from innereye_core.packaging.plan import MemberSource
from innereye_core.packaging.validation_table import VALIDATION_FILE


def packaged_member(package: Package, fold: str) -> MemberSource:
    """The one member of a verified ``final_model``, as the member of an ensemble that it shall be.

    Args:
        package: the package of one fold.
        fold: index of the fold.

    Raises:
        InputError: it is an ensemble itself, or its config or validation.json is not what this project writes.
    """
    if package.manifest.kind != FINAL_MODEL:
        raise InputError(f"{package.folder}: is an ensemble, and cannot be fold {fold} of another one")
    packaged = read_inference_config(package.folder / INFERENCE_CONFIG_FILE)
    if not isinstance(packaged, PackagedConfig):
        raise InputError(f"{package.folder}: is a package that InnerEye wrote, without the settings of its network")
    record = package.manifest.members[0]
    code = packaged.config.extra_code_directory
    return MemberSource(
        run=Run(
            id=record.run,
            name=package.manifest.run.name,
            folder=package.folder,
            source=package.manifest.run.source,
            fold=fold,
        ),
        config=packaged.config,
        extra_code=None if code is None else package.folder / code,
        selection=_selection(package.folder, record),
        packaged=record.checkpoint,
    )


def _selection(folder: Path, record: MemberRecord) -> Selection:
    """The selection with its whole table; the selected checkpoint is the packaged one."""
    path = folder / VALIDATION_FILE
    document = read_json_object(path)
    selected = Candidate(record.epoch, folder / record.path, format="packaged")
    try:
        candidates = tuple(_candidate(entry, selected) for entry in document["candidates"])
        evaluated = bool(document["evaluated"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is not the table of a selection ({error!r}); package the fold again") from None
    if record.epoch not in {scored.epoch for scored in candidates}:
        raise InputError(f"{path}: has no epoch {record.epoch}, which was packaged; package the fold again")
    return Selection(record.policy, selected, candidates, evaluated)


def _candidate(entry: Mapping[str, Any], selected: Candidate) -> ScoredCandidate:
    epoch = int(entry["epoch"])
    subjects = tuple(
        SubjectScore(
            str(subject["subject"]),
            {str(name): math.nan if dice is None else float(dice) for name, dice in subject["structures"].items()},
        )
        for subject in entry["subjects"]
    )
    return ScoredCandidate(Candidate(epoch, selected.checkpoint, selected.format), subjects)
