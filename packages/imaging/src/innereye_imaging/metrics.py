"""How well a segmentation agrees with masks, per structure: Dice, and distances between surfaces in mm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innereye_core.errors import InputError

_MM3_PER_ML = 1000
_ROBUST_PERCENTILE = 95


@dataclass(frozen=True)
class StructureMetrics:
    """Agreement of one structure's segmentation with its reference mask."""

    dice: float
    """In [0, 1]; NaN where the structure is empty in both."""
    hausdorff_mm: float
    """Hausdorff distance; NaN where the structure is empty in both, infinite where it is in one."""
    hausdorff_95_mm: float
    """The same of the 95th percentile of distances between surfaces."""
    mean_distance_mm: float
    """Mean distance between surfaces; NaN and infinite likewise."""
    reference_ml: float
    """Volume of the reference mask."""
    predicted_ml: float
    """Volume of the segmentation."""


def dice_per_structure(
    labels: NDArray[np.uint8], masks: Mapping[str, NDArray[np.bool_]], structure_names: Sequence[str]
) -> dict[str, float]:
    """Dice coefficient 2·|A∩B| / (|A| + |B|) of each structure.

    Args:
        labels: (z, y, x); label i is structure number i, counted from 1.
        masks: structure name → (z, y, x), on the same grid.
        structure_names: structures 1, 2, …; each must have a mask.

    Returns:
        Structure name → Dice in [0, 1]; NaN where the structure is empty in both.

    Raises:
        InputError: a structure has no mask, or a mask has another shape.
    """
    scores = {}
    for number, name in enumerate(structure_names, start=1):
        if name not in masks:
            raise InputError(
                f"Structure {name!r} has no mask to compare with; masks are there for {', '.join(masks) or 'none'}"
            )
        mask = masks[name]
        if mask.shape != labels.shape:
            raise InputError(f"Mask of {name!r} has shape {mask.shape}, the segmentation {labels.shape} (z, y, x)")
        scores[name] = _dice(labels == number, mask)
    return scores


def structure_metrics(
    found: NDArray[np.bool_], mask: NDArray[np.bool_], spacing_zyx_mm: tuple[float, float, float]
) -> StructureMetrics:
    """Dice, surface distances and volumes of one structure.

    Distances are computed by SimpleITK between centres of voxels, as InnerEye's ``metrics.csv`` has them:

    - Hausdorff distance: the largest distance of a voxel of one mask to the nearest of the other, over both directions
      (``HausdorffDistanceImageFilter``).
    - Mean distance: the mean over the voxels of both surfaces of the distance to the other surface. A surface voxel has
      a face neighbour outside the mask and inside the image, so that what the image cuts off is no surface
      (``LabelContour``, ``SignedMaurerDistanceMap``). A mask that fills the image has none, and is infinitely far.
    - 95 % Hausdorff distance, which InnerEye has not: the 95th percentile of the same surface distances, in the
      direction where it is larger. As it is measured between surfaces, it can exceed the Hausdorff distance where a
      surface lies deep inside the other mask, such as that of a hole.

    Args:
        found: (z, y, x), True where the segmentation has the structure.
        mask: (z, y, x), True where the reference has it; on the same grid.
        spacing_zyx_mm: distance between voxel centres.

    Raises:
        InputError: the two differ in shape.
    """
    if found.shape != mask.shape:
        raise InputError(f"The mask has shape {mask.shape}, the segmentation {found.shape} (z, y, x); give a pair")
    voxel_ml = math.prod(spacing_zyx_mm) / _MM3_PER_ML
    hausdorff, hausdorff_95, mean = _distances(found, mask, spacing_zyx_mm)
    return StructureMetrics(
        dice=_dice(found, mask),
        hausdorff_mm=hausdorff,
        hausdorff_95_mm=hausdorff_95,
        mean_distance_mm=mean,
        reference_ml=float(np.count_nonzero(mask) * voxel_ml),
        predicted_ml=float(np.count_nonzero(found) * voxel_ml),
    )


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    sizes = np.count_nonzero(one) + np.count_nonzero(other)
    return float(2 * np.count_nonzero(one & other) / sizes) if sizes else math.nan


# --- distances --------------------------------------------------------------------------------------------------------


def _distances(
    one: NDArray[np.bool_], other: NDArray[np.bool_], spacing_zyx_mm: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Hausdorff distance, its 95 % form, and the mean distance between the surfaces, in mm."""
    if not one.any() or not other.any():
        distance = math.inf if one.any() or other.any() else math.nan
        return distance, distance, distance
    sitk = _simple_itk()
    box = _box_with_margin(one | other)
    images = [_itk_image(mask[box], spacing_zyx_mm) for mask in (one, other)]
    largest = sitk.HausdorffDistanceImageFilter()
    largest.Execute(*images)
    hausdorff = float(largest.GetHausdorffDistance())
    if one.all() or other.all():
        distance = math.nan if one.all() and other.all() else math.inf
        return hausdorff, distance, distance
    surfaces = [sitk.GetArrayFromImage(sitk.LabelContour(image)).astype(bool) for image in images]
    maps = [
        sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True))
        for image in images
    ]
    there, back = (np.abs(map[surface]).astype(np.float64) for map, surface in zip(maps[::-1], surfaces, strict=True))
    robust = max(np.percentile(there, _ROBUST_PERCENTILE), np.percentile(back, _ROBUST_PERCENTILE))
    return hausdorff, float(robust), float(np.concatenate([there, back]).mean())


def _box_with_margin(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box around a mask, one voxel wider where the image goes on: no distance changes in it."""
    box = []
    for axis in range(mask.ndim):
        inside = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(max(0, int(inside[0]) - 1), int(inside[-1]) + 2))
    return tuple(box)


def _itk_image(mask: NDArray[np.bool_], spacing_zyx_mm: tuple[float, float, float]) -> Any:
    image = _simple_itk().GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing_zyx_mm[::-1])
    return image


def _simple_itk() -> Any:
    """SimpleITK, imported when distances are needed, and only then."""
    import SimpleITK

    return SimpleITK
