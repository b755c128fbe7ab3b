"""Compares what was found in a new patient with what the validation set had, and names what somebody should look at.

The validation set's masks are measured once, when a model is packaged; the package carries what was found as
``validation_ranges.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from innereye_core.manifest import read_record, record_bytes
from innereye_core.model import Check, StructureVolume
from innereye_imaging.statistics import MM3_PER_ML, count_components

RANGES_FILE = "validation_ranges.json"

FAR_FACTOR = 2.0
"""What is smaller than the smallest of the validation set by this factor, or larger than the largest, is far from it.

A factor, because organs differ in proportion to their size. 2, because a validation set is small: of n patients of the
same kind, the next is outside their range with a probability of 2 / (n + 1), which is no reason for alarm, but rarely
twice as large as the largest. What does go wrong (a missed half, a leak into the neighbouring organ, a scatter of
islands in an image of another kind) exceeds it. With masks in one piece, two pieces pass and three do not."""


@dataclass(frozen=True)
class Extent:
    """How much of a structure there is, in how many pieces."""

    volume_ml: float
    components: int
    """Face-connected components; 0 where the structure is not there."""


@dataclass(frozen=True)
class ValidationSubject:
    """The masks of one subject."""

    subject: str
    fold: str | None
    """The member of the ensemble that the subject belongs to the validation set of; None for a single model."""
    structures: Mapping[str, Extent]
    """Structure name → its mask."""


@dataclass(frozen=True)
class ValidationRanges:
    """What the masks of the validation set are like."""

    subjects: tuple[ValidationSubject, ...]


def read_validation_ranges(folder: Path) -> ValidationRanges | None:
    """What a package knows of its validation set; None where it has no such file.

    Raises:
        IntegrityError: the file is damaged.
    """
    path = folder / RANGES_FILE
    return read_record(path, ValidationRanges) if path.is_file() else None


def validation_ranges_bytes(ranges: ValidationRanges) -> bytes:
    """The content of the file."""
    return record_bytes(ranges)


def extent_of_mask(mask: NDArray[np.bool_], voxel_volume_mm3: float) -> Extent:
    """Measure the mask (z, y, x) of one structure."""
    volume_ml = float(np.count_nonzero(mask) * voxel_volume_mm3 / MM3_PER_ML)
    return Extent(volume_ml, count_components(mask.view(np.uint8))[1])


def review(
    labels: NDArray[np.uint8], volumes: Mapping[str, StructureVolume], ranges: ValidationRanges | None
) -> tuple[Check, tuple[str, ...]]:
    """Name the structures that are far from what validation saw (see :data:`FAR_FACTOR`).

    A structure is also named if it was not found although every subject has it, or found although none has.

    Args:
        labels: (z, y, x).
        volumes: structure name → its label and how much was found.
        ranges: what validation saw; None where nobody knows, and components are then not counted.

    Returns:
        What was compared, and one line for each thing to look at.
    """
    if ranges is None:
        return Check("review", "unchecked", "the model does not say what its validation set was like"), ()
    lines: list[str] = []
    unknown = []
    components = count_components(labels)
    for name, volume in volumes.items():
        seen = [subject.structures[name] for subject in ranges.subjects if name in subject.structures]
        lines += [
            f"{name}: {finding}" for finding in _findings(Extent(volume.volume_ml, components[volume.label]), seen)
        ]
        unknown += [name] if not seen else []
    compared = f"volume and components compared with {_subjects(len(ranges.subjects))} of the validation set"
    if lines:
        return Check("review", "warning", f"{compared}, {len(lines)} to look at"), tuple(lines)
    if unknown:
        return Check("review", "unchecked", f"{compared}, which had no masks of {', '.join(unknown)}"), ()
    return Check("review", "passed", compared), ()


def _findings(extent: Extent, seen: list[Extent]) -> list[str]:
    present = [one for one in seen if one.components]
    if not seen:
        return []
    who = _subjects(len(seen))
    if not extent.components:
        return (
            [f"not found, but {who} of {len(seen)} in the validation set had it"] if len(present) == len(seen) else []
        )
    if not present:
        return [f"{_ml(extent.volume_ml)} ml found, but 0 of {who} in the validation set had it"]
    findings = []
    volumes = [one.volume_ml for one in present]
    if _is_far(extent.volume_ml, volumes):
        span = _span(_ml(min(volumes)), _ml(max(volumes)))
        findings.append(f"{_ml(extent.volume_ml)} ml, but {who} in the validation set had {span} ml")
    counts = [one.components for one in present]
    if _is_far(extent.components, counts):
        span = _span(str(min(counts)), str(max(counts)))
        findings.append(f"{extent.components} components, but {who} in the validation set had {span}")
    return findings


def _is_far(value: float, seen: list[float] | list[int]) -> bool:
    return not min(seen) / FAR_FACTOR <= value <= max(seen) * FAR_FACTOR


def _ml(volume: float) -> str:
    return f"{volume:.0f}" if volume >= 100 else f"{volume:.3g}"


def _subjects(count: int) -> str:
    return f"{count} subject{'' if count == 1 else 's'}"


def _span(lowest: str, highest: str) -> str:
    return lowest if lowest == highest else f"{lowest} to {highest}"
