"""Distances between segmentation and mask: closed forms, brute force on random masks, and what InnerEye reports."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from innereye_core.errors import InputError
from innereye_imaging.metrics import StructureMetrics, structure_metrics

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

SHAPE = (24, 30, 36)
SPACINGS: list[Spacing] = [(1.0, 1.0, 1.0), (3.0, 0.9, 0.7)]


def measured(found: Mask, mask: Mask, spacing_zyx_mm: Spacing = (1.0, 1.0, 1.0)) -> StructureMetrics:
    return structure_metrics(found, mask, spacing_zyx_mm)


def box(*corners: tuple[int, int], shape: tuple[int, int, int] = SHAPE) -> Mask:
    """A box from first to last voxel (exclusive) along z, y, x."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*ends) for ends in corners)] = True
    return mask


def ball(centre: tuple[float, float, float], radius_mm: float, spacing_zyx_mm: Spacing, shape: tuple[int, ...]) -> Mask:
    offsets = (np.indices(shape).T - centre) * spacing_zyx_mm
    inside: Mask = (np.linalg.norm(offsets, axis=-1) <= radius_mm).T
    return inside


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("voxels", [1, 4])
def test_a_shifted_box_is_as_far_away_as_it_was_shifted(spacing: Spacing, axis: int, voxels: int) -> None:
    mask = box((4, 14), (5, 17), (6, 20))
    metrics = measured(np.roll(mask, voxels, axis), mask, spacing)
    assert metrics.hausdorff_mm == pytest.approx(voxels * spacing[axis])
    edge = (10, 12, 14)[axis]
    assert metrics.dice == pytest.approx((edge - voxels) / edge)


def test_mean_distance_of_a_slab_that_was_shifted_by_one_of_its_voxels() -> None:
    """Two slabs of thickness 1 from border to border: every surface voxel is 5 mm from the other slab."""
    one, other = box((4, 5), (0, 30), (0, 36)), box((6, 7), (0, 30), (0, 36))
    metrics = measured(one, other, (2.5, 1.0, 1.0))
    assert (metrics.hausdorff_mm, metrics.hausdorff_95_mm, metrics.mean_distance_mm) == (5.0, 5.0, 5.0)


def test_distances_of_two_voxels_are_pythagoras() -> None:
    one, other = box((2, 3), (3, 4), (4, 5)), box((4, 5), (7, 8), (9, 10))
    distance = math.hypot(2 * 3.0, 4 * 0.9, 5 * 0.7)
    metrics = measured(one, other, (3.0, 0.9, 0.7))
    assert metrics.hausdorff_mm == pytest.approx(distance, abs=1e-6)
    assert metrics.hausdorff_95_mm == pytest.approx(distance, abs=1e-5)
    assert metrics.mean_distance_mm == pytest.approx(distance, abs=1e-5)


def test_a_box_inside_another_is_as_far_away_as_the_corner() -> None:
    outer, inner = box((4, 16), (4, 16), (4, 16)), box((6, 14), (6, 14), (6, 14))
    metrics = measured(outer, inner)
    assert metrics.hausdorff_mm == pytest.approx(math.sqrt(3) * 2)
    assert metrics.dice == pytest.approx(2 * 8**3 / (8**3 + 12**3))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)])
def test_concentric_balls_are_as_far_apart_as_their_radii(spacing: Spacing) -> None:
    """Up to the length of a voxel's diagonal, since balls of voxels are not round."""
    shape = (50, 50, 50)
    large, small = (ball((24.5, 24.5, 24.5), radius, spacing, shape) for radius in (20.0, 14.0))
    metrics = measured(large, small, spacing)
    assert metrics.hausdorff_mm == pytest.approx(6.0, abs=math.hypot(*spacing))
    assert metrics.mean_distance_mm == pytest.approx(6.0, abs=0.5 * math.hypot(*spacing))
    assert metrics.reference_ml == pytest.approx(4 / 3 * math.pi * 1.4**3, rel=0.02)
    assert metrics.predicted_ml == pytest.approx(4 / 3 * math.pi * 2.0**3, rel=0.02)


def test_a_ball_that_was_shifted_is_as_far_away_as_it_was_shifted() -> None:
    mask = ball((20, 20, 20), 12.0, (1.0, 1.0, 1.0), (48, 40, 40))
    metrics = measured(np.roll(mask, 5, axis=0), mask)
    assert metrics.hausdorff_mm == pytest.approx(5.0)
    assert metrics.hausdorff_95_mm == pytest.approx(0.95 * 5.0, abs=0.5), "on a sphere |cos| is evenly distributed"
    assert metrics.mean_distance_mm == pytest.approx(0.5 * 5.0, abs=0.5)


def test_few_voxels_far_away_change_the_hausdorff_distance_and_not_its_95_percent_form() -> None:
    mask = box((4, 14), (4, 14), (4, 14))
    found = mask.copy()
    found[9, 9, 30] = True
    metrics = measured(found, mask)
    assert metrics.hausdorff_mm == 30 - 13
    assert metrics.hausdorff_95_mm == 0


def test_a_mask_agrees_with_itself() -> None:
    mask = box((4, 14), (4, 14), (4, 14))
    assert measured(mask, mask, (2.0, 5.0, 10.0)) == StructureMetrics(1.0, 0.0, 0.0, 0.0, 100.0, 100.0)


# --- what is empty, and what has no surface ---------------------------------------------------------------------------

EMPTY, SOME, ALL = np.zeros(SHAPE, bool), box((4, 14), (4, 14), (4, 14)), np.ones(SHAPE, bool)


def test_a_structure_that_is_in_neither_has_no_metrics() -> None:
    metrics = measured(EMPTY, EMPTY)
    values = (metrics.dice, metrics.hausdorff_mm, metrics.hausdorff_95_mm, metrics.mean_distance_mm)
    assert all(math.isnan(value) for value in values)
    assert (metrics.reference_ml, metrics.predicted_ml) == (0.0, 0.0)


@pytest.mark.parametrize(("found", "mask"), [(EMPTY, SOME), (SOME, EMPTY)])
def test_a_structure_that_is_in_one_only_is_infinitely_far_away(found: Mask, mask: Mask) -> None:
    metrics = measured(found, mask)
    assert metrics.dice == 0
    assert metrics.hausdorff_mm == metrics.hausdorff_95_mm == metrics.mean_distance_mm == math.inf


def test_a_mask_that_fills_the_image_has_no_surface() -> None:
    metrics = measured(ALL, SOME)
    assert metrics.hausdorff_mm == pytest.approx(math.hypot(10, 16, 22))
    assert metrics.hausdorff_95_mm == metrics.mean_distance_mm == math.inf
    metrics = measured(ALL, ALL)
    assert (metrics.dice, metrics.hausdorff_mm) == (1.0, 0.0)
    assert math.isnan(metrics.mean_distance_mm)


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"The mask has shape \(24, 30, 35\), the segmentation \(24, 30, 36\)"):
        measured(SOME, SOME[..., :-1])


# --- brute force ------------------------------------------------------------------------------------------------------


def neighbour_is_outside(mask: Mask, faces_only: bool) -> Mask:
    """Voxels of the mask with a neighbour inside the image that is not in the mask."""
    padded = np.pad(mask, 1, constant_values=True)
    found = np.zeros_like(mask)
    for step in np.ndindex(3, 3, 3):
        if not faces_only or sum(abs(s - 1) for s in step) == 1:
            found |= mask & ~padded[tuple(slice(s, s + size) for s, size in zip(step, mask.shape, strict=True))]
    return found


def all_distances(one: Mask, other: Mask, spacing: Spacing) -> NDArray[np.float64]:
    """Of each voxel of one mask, the distance to the nearest of the other."""
    points, others = (np.argwhere(mask) * spacing for mask in (one, other))
    nearest: NDArray[np.float64] = np.linalg.norm(points[:, None] - others[None], axis=-1).min(axis=1)
    return nearest


masks = arrays(bool, (5, 6, 7), elements=st.booleans()) | arrays(bool, (5, 6, 7), fill=st.just(False))


@given(found=masks, mask=masks, spacing=st.sampled_from(SPACINGS))
@settings(max_examples=60, deadline=None)
def test_distances_are_those_of_comparing_every_voxel_with_every_other(
    found: Mask, mask: Mask, spacing: Spacing
) -> None:
    metrics = measured(found, mask, spacing)
    if not found.any() or not mask.any() or found.all() or mask.all():
        return
    hausdorff = max(all_distances(found, mask, spacing).max(), all_distances(mask, found, spacing).max())
    assert metrics.hausdorff_mm == pytest.approx(hausdorff, abs=1e-6)
    there, back = (
        all_distances(neighbour_is_outside(one, True), neighbour_is_outside(other, False), spacing)
        for one, other in ((found, mask), (mask, found))
    )
    assert metrics.mean_distance_mm == pytest.approx(np.concatenate([there, back]).mean(), abs=1e-5)
    assert metrics.hausdorff_95_mm == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-5)


# --- what InnerEye reports --------------------------------------------------------------------------------------------


def whole_image_metrics(found: Mask, mask: Mask, spacing: Spacing) -> tuple[float, float]:
    """Hausdorff and mean distance with the SimpleITK filters that InnerEye called, on the whole image."""
    import SimpleITK

    images = [SimpleITK.GetImageFromArray(volume.astype(np.uint8)) for volume in (found, mask)]
    for image in images:
        image.SetSpacing(spacing[::-1])
    hausdorff = SimpleITK.HausdorffDistanceImageFilter()
    hausdorff.Execute(*images)
    surfaces = [SimpleITK.GetArrayFromImage(SimpleITK.LabelContour(image)) for image in images]
    maps = [SimpleITK.Abs(SimpleITK.SignedMaurerDistanceMap(image, False, False, True)) for image in images]
    sums = [(SimpleITK.GetArrayFromImage(maps[1 - i]) * surfaces[i]).sum(dtype=np.float64) for i in (0, 1)]
    return hausdorff.GetHausdorffDistance(), sum(sums) / sum(int(surface.sum()) for surface in surfaces)


@pytest.mark.parametrize("seed", range(4))
def test_hausdorff_and_mean_distance_are_those_of_the_filters_that_innereye_called(seed: int) -> None:
    """Blobs that touch the border of the image, as organs do, where the part around them alone would be cut wrongly."""
    rng = np.random.default_rng(seed)
    spacing = (2.5, 0.9, 0.7)
    found, mask = (ball(tuple(rng.uniform(0, SHAPE)), rng.uniform(5, 15), spacing, SHAPE) for _ in range(2))
    metrics = measured(found, mask, spacing)
    hausdorff, mean = whole_image_metrics(found, mask, spacing)
    assert metrics.hausdorff_mm == pytest.approx(hausdorff, rel=1e-9)
    assert metrics.mean_distance_mm == pytest.approx(mean, rel=1e-6)
