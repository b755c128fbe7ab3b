"""How much of each structure a segmentation holds, in how many pieces, where, and how bright the image is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from innereye_core.model import SizeZYX, StructureVolume
from innereye_imaging.geometry import Grid, Voxels

PointRAS: TypeAlias = tuple[float, float, float]
"""A place in mm: towards the patient's right, front and head, as in NIfTI."""

MM3_PER_ML = 1000
_LABELS = 256
_SLICES_AT_ONCE = 16
"""Components are found in so many slices at a time, so that no array of wide numbers is as large as the image."""


@dataclass(frozen=True)
class BoundingBox:
    """The smallest box of voxels around a structure."""

    first_zyx: SizeZYX
    """Its first voxel, counted from 0, in the order of the file (z slowest)."""
    last_zyx: SizeZYX
    """Its last voxel."""
    lowest_ras_mm: PointRAS
    """Lowest coordinates of the outer edges of its voxels."""
    highest_ras_mm: PointRAS


@dataclass(frozen=True)
class StructureStatistics:
    """What a segmentation says about one structure."""

    label: int
    voxels: int
    volume_ml: float
    components: int
    """Number of pieces that share no face of a voxel."""
    touches_border: bool
    """Whether it has a voxel at the edge of the image, and may go on beyond."""
    bounding_box: BoundingBox | None
    """None where the structure was not found."""
    mean_intensity: Mapping[str, float] = field(default_factory=dict)
    """Image channel → mean of the image's values as the file has them; empty where the structure was not found."""


def structure_volumes(
    labels: NDArray[np.uint8], voxel_volume_mm3: float, structure_names: Sequence[str]
) -> dict[str, StructureVolume]:
    """Voxels and volume of each structure.

    Args:
        labels: (z, y, x); label i is structure number i, counted from 1.
        voxel_volume_mm3: volume of one voxel.
        structure_names: structures 1, 2, …

    Returns:
        Structure name → label, number of voxels, volume in millilitres; also for structures that were not found.
    """
    # Slice by slice, since bincount works on a 64-bit copy.
    voxels = np.zeros(_LABELS, np.int64)
    for label_slice in labels:
        voxels += np.bincount(label_slice.ravel(), minlength=_LABELS)
    return {
        name: StructureVolume(number, int(voxels[number]), float(voxels[number] * voxel_volume_mm3 / MM3_PER_ML))
        for number, name in enumerate(structure_names, start=1)
    }


def structure_statistics(
    labels: NDArray[np.uint8], grid: Grid, structure_names: Sequence[str], channels: Iterable[tuple[str, Voxels]] = ()
) -> dict[str, StructureStatistics]:
    """Everything about each structure.

    Args:
        labels: (z, y, x); label i is structure number i, counted from 1.
        grid: where the labels lie.
        structure_names: structures 1, 2, …
        channels: name and values (z, y, x) of each image channel; taken one after the other, so that they need not be
            in memory together.

    Returns:
        Structure name → statistics; also for structures that were not found.
    """
    from scipy.ndimage import find_objects

    volumes = structure_volumes(labels, grid.voxel_volume_mm3, structure_names)
    components = count_components(labels)
    boxes = find_objects(labels, max_label=len(structure_names))
    means = {channel: _means(labels, voxels) for channel, voxels in channels}
    return {
        name: StructureStatistics(
            label=volume.label,
            voxels=volume.voxels,
            volume_ml=volume.volume_ml,
            components=components[volume.label],
            touches_border=box is not None and _touches_border(box, labels.shape),
            bounding_box=None if box is None else _bounding_box(box, grid),
            mean_intensity={}
            if box is None
            else {channel: float(mean[volume.label]) for channel, mean in means.items()},
        )
        for (name, volume), box in zip(volumes.items(), boxes, strict=True)
    }


def count_components(labels: NDArray[np.uint8]) -> list[int]:
    """Number of face-connected components of every label.

    Args:
        labels: (z, y, x).

    Returns:
        256 numbers, by label; 0 for the background.
    """
    import cc3d
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    labels = _cropped(labels)
    # Every few slices on their own; then what touches across the borders between them is joined.
    label_of = [np.zeros(1, np.uint8)]  # piece → label; piece 0 is the background
    touching: list[NDArray[np.int64]] = []
    pieces, below = 1, None
    for start in range(0, len(labels), _SLICES_AT_ONCE):
        part = np.ascontiguousarray(labels[start : start + _SLICES_AT_ONCE])
        found, count = cc3d.connected_components(part, connectivity=6, return_N=True)
        numbers = np.zeros(count + 1, np.uint8)
        for found_slice, label_slice in zip(found, part, strict=True):
            numbers[found_slice] = label_slice
        label_of.append(numbers[1:])
        lowest = np.where(found[0] > 0, found[0].astype(np.int64) + (pieces - 1), 0)
        if below is not None:
            joined = (labels[start] == labels[start - 1]) & (labels[start] > 0)
            touching.append(np.unique(np.stack([below[joined], lowest[joined]]), axis=1))
        below = np.where(found[-1] > 0, found[-1].astype(np.int64) + (pieces - 1), 0)
        pieces += count
    by_piece = np.concatenate(label_of)
    pairs = np.concatenate(touching, axis=1) if touching else np.zeros((2, 0), np.int64)
    graph = coo_array((np.ones(pairs.shape[1], bool), (pairs[0], pairs[1])), shape=(pieces, pieces))
    count, component = connected_components(graph, directed=False)
    label_of_component = np.zeros(count, np.uint8)
    label_of_component[component] = by_piece
    counts: list[int] = np.bincount(label_of_component, minlength=_LABELS).tolist()
    counts[0] = 0
    return counts


def _cropped(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The part that is not all background; one voxel where there is nothing else."""
    planes = [np.flatnonzero(labels.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    return labels[tuple(slice(along[0], along[-1] + 1) if along.size else slice(1) for along in planes)]


def _means(labels: NDArray[np.uint8], voxels: Voxels) -> NDArray[np.float64]:
    """Mean value by label; NaN where there is no voxel."""
    sums, counts = np.zeros(_LABELS), np.zeros(_LABELS)
    for label_slice, value_slice in zip(labels, voxels, strict=True):
        sums += np.bincount(label_slice.ravel(), value_slice.ravel().astype(np.float64), _LABELS)
        counts += np.bincount(label_slice.ravel(), minlength=_LABELS)
    with np.errstate(invalid="ignore"):
        return sums / counts


def _touches_border(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    return any(along.start == 0 or along.stop == size for along, size in zip(box, shape, strict=True))


def _bounding_box(box: tuple[slice, ...], grid: Grid) -> BoundingBox:
    first_z, first_y, first_x = (along.start for along in box)
    last_z, last_y, last_x = (along.stop - 1 for along in box)
    corners = product((first_x - 0.5, last_x + 0.5), (first_y - 0.5, last_y + 0.5), (first_z - 0.5, last_z + 0.5), (1,))
    places = (grid.affine @ np.array(list(corners)).T)[:3]
    (low_r, low_a, low_s), (high_r, high_a, high_s) = places.min(axis=1).tolist(), places.max(axis=1).tolist()
    return BoundingBox(
        (first_z, first_y, first_x), (last_z, last_y, last_x), (low_r, low_a, low_s), (high_r, high_a, high_s)
    )
