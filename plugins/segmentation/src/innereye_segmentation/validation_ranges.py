"""Measures the masks of the validation set when a model is packaged, so that scoring can tell what is unlike them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from innereye_core.errors import InputError
from innereye_core.model import PlannedFile
from innereye_imaging.dataset import Subject, read_split
from innereye_imaging.formats import read_image
from innereye_imaging.review import (
    RANGES_FILE,
    Extent,
    ValidationRanges,
    ValidationSubject,
    extent_of_mask,
    read_validation_ranges,
    validation_ranges_bytes,
)

if TYPE_CHECKING:
    from pathlib import Path

    from innereye_core.config import ModelConfig
    from innereye_core.contract.providers import ImageFormat
    from innereye_core.model import PackagePlan, Run

logger = logging.getLogger(__name__)

_WHAT_FOR = "it is needed to tell, when scoring, what is unlike the validation set"


def validation_range_files(plan: PackagePlan, formats: Sequence[ImageFormat]) -> list[PlannedFile]:
    """The file of a package that says how large the structures of its validation set are, and in how many pieces.

    For an ensemble it has the validation sets of all members. A member that comes from a package has it from there. A
    mask that cannot be read is a warning: the model is the same without.

    Args:
        plan: the package that is made.
        formats: the installed image formats.

    Returns:
        One file, or none where no mask is at hand.
    """
    subjects = [subject for member in plan.members for subject in _subjects(member.run, plan.config, formats)]
    if not subjects:
        return []
    content = validation_ranges_bytes(ValidationRanges(tuple(subjects)))
    return [PlannedFile(RANGES_FILE, "validation", content=content)]


def _subjects(run: Run, config: ModelConfig, formats: Sequence[ImageFormat]) -> Iterator[ValidationSubject]:
    packaged = read_validation_ranges(run.folder)
    if packaged is not None:
        yield from (dataclasses.replace(subject, fold=run.fold) for subject in packaged.subjects)
        return
    dataset = run.folder / "dataset.csv"
    if not dataset.is_file():
        logger.info("%s: has no dataset.csv; %s", run.folder, _WHAT_FOR)
        return
    try:
        split = read_split(dataset, "val", config.image_channels, config.structure_names)
    except InputError as error:
        logger.warning("%s (%s)", error, _WHAT_FOR)
        return
    for problem in split.unusable.values():
        logger.warning("%s (%s)", problem, _WHAT_FOR)
    for subject in split.subjects:
        try:
            extents = _extents(subject, formats)
        except InputError as error:
            logger.warning("%s (%s)", error, _WHAT_FOR)
            continue
        logger.info("measured the validation masks of subject %s", subject.name)
        yield ValidationSubject(subject.name, run.fold, extents)


def _extents(subject: Subject, formats: Sequence[ImageFormat]) -> dict[str, Extent]:
    return {name: _extent(path, formats) for name, path in subject.references.items()}


def _extent(path: Path, formats: Sequence[ImageFormat]) -> Extent:
    mask = read_image(path, formats)
    return extent_of_mask(mask.voxels != 0, mask.grid.voxel_volume_mm3)
