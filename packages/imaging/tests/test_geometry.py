"""Orientation, grids and resampling."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest

from innereye_core.errors import InputError
from innereye_imaging.geometry import Grid, Image, check_affine, reorient, resample, resampled_grid, restore_axes

ALL_ORIENTATIONS = [
    "".join(code) for axes in permutations((("L", "R"), ("P", "A"), ("I", "S"))) for code in product(*axes)
]


def an_image(codes: str = "RAS") -> Image:
    voxels = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(np.int16)
    oblique = nib.affines.from_matvec(
        nib.eulerangles.euler2mat(0.1, 0.05, -0.08) @ np.diag([0.9, 1.5, 2.5]), [5, -7, 9]
    )
    return reorient(Image(voxels, oblique), codes)


def world_of(image: Image) -> dict[int, tuple[float, ...]]:
    """Where each value lies in the patient."""
    return {
        int(image.voxels[z, y, x]): tuple(np.round(image.affine @ [x, y, z, 1], 6))
        for z, y, x in np.ndindex(image.voxels.shape)
    }


def test_there_are_48_orientations() -> None:
    assert len(set(ALL_ORIENTATIONS)) == 48


@pytest.mark.parametrize("codes", ALL_ORIENTATIONS)
def test_reorienting_keeps_every_value_where_it_is_in_the_patient(codes: str) -> None:
    image = an_image()
    turned = reorient(image, codes)
    assert turned.grid.axis_codes == codes
    assert world_of(turned) == world_of(image)


@pytest.mark.parametrize("codes", ALL_ORIENTATIONS)
def test_restoring_axes_undoes_reorienting_exactly(codes: str) -> None:
    image = an_image("LPS")
    labels = restore_axes(reorient(image, codes).voxels, codes, "LPS")
    np.testing.assert_array_equal(labels, image.voxels)


@pytest.mark.parametrize("codes", ["PIR", "SLA"])
def test_restoring_axes_leaves_leading_class_axis_alone(codes: str) -> None:
    image = an_image("LPS")
    turned = reorient(image, codes).voxels
    posteriors = np.stack([turned, turned + 100])
    restored = restore_axes(posteriors, codes, "LPS")
    np.testing.assert_array_equal(restored, [image.voxels, image.voxels + 100])


def test_spacing_and_volume_come_from_the_affine() -> None:
    grid = an_image().grid
    assert grid.size_zyx == (2, 3, 4)
    assert grid.spacing_xyz_mm == pytest.approx((0.9, 1.5, 2.5))
    assert grid.voxel_volume_mm3 == pytest.approx(0.9 * 1.5 * 2.5)


def test_a_grid_describes_itself_in_file_axes() -> None:
    assert str(Grid((2, 3, 4), np.diag([-0.5, -0.5, 3, 1]))) == (
        "4 × 3 × 2 voxels of 0.5 × 0.5 × 3 mm, LPS, first voxel at (0, 0, 0) mm"
    )


def test_grids_match_despite_rounding_of_the_header() -> None:
    grid = an_image().grid
    assert grid.matches(Grid(grid.size_zyx, grid.affine.astype(np.float32).astype(np.float64)))


@pytest.mark.parametrize(
    "other",
    [
        Grid((2, 3, 5), np.eye(4)),
        Grid((2, 3, 4), np.diag([1, 1, 1.2, 1])),
        Grid((2, 3, 4), nib.affines.from_matvec(np.eye(3), [0.5, 0, 0])),
        Grid((2, 3, 4), np.diag([-1, 1, 1, 1])),
    ],
    ids=["size", "spacing", "half a voxel off", "flipped"],
)
def test_other_grids_do_not_match(other: Grid) -> None:
    assert not Grid((2, 3, 4), np.eye(4)).matches(other)


@pytest.mark.parametrize(
    ("affine", "problem"),
    [
        (np.diag([1.0, 0.0, 1.0, 1.0]), "singular"),
        (np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "singular"),
        (np.array([[1, 0, 0, 0], [0, 1, 0.2, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "sheared by 11"),
        (np.full((4, 4), np.nan), "finite"),
        (np.eye(3), "4×4"),
    ],
)
def test_unusable_affines_are_refused_by_name(affine: np.ndarray, problem: str) -> None:
    with pytest.raises(InputError, match=f"^scan.nii: .*{problem}"):
        check_affine(affine, "scan.nii")


def test_the_resampled_grid_covers_the_same_box() -> None:
    grid = Grid((10, 20, 30), an_image().affine)
    finer = resampled_grid(grid, (0.45, 0.75, 1.25))
    assert finer.size_zyx == (20, 40, 60)
    assert finer.spacing_xyz_mm == pytest.approx((0.45, 0.75, 1.25))
    outer_corner = np.array([-0.5, -0.5, -0.5, 1])
    np.testing.assert_allclose(finer.affine @ outer_corner, grid.affine @ outer_corner)


def test_linear_resampling_reproduces_a_linear_image() -> None:
    source = Grid((6, 8, 10), an_image("LPS").affine)
    target = resampled_grid(source, (0.6, 1.0, 2.0))
    z, y, x = np.indices(source.size_zyx)
    world = np.einsum("ij,j...->i...", source.affine, np.stack([x, y, z, np.ones_like(x)]))
    found = resample(3 * world[0] - world[1] + 2 * world[2], source, target, order=1, dtype=np.float64)
    z, y, x = np.indices(target.size_zyx)
    world = np.einsum("ij,j...->i...", target.affine, np.stack([x, y, z, np.ones_like(x)]))
    inside = (slice(1, -1),) * 3  # at the border the nearest voxel continues
    np.testing.assert_allclose(found[inside], (3 * world[0] - world[1] + 2 * world[2])[inside], atol=1e-9)


def test_labels_come_back_unchanged_from_a_finer_grid() -> None:
    source = Grid((5, 6, 7), np.diag([2.0, 2.0, 4.0, 1.0]))
    finer = resampled_grid(source, (1.0, 1.0, 1.0))
    labels = np.random.default_rng(0).integers(0, 4, source.size_zyx).astype(np.uint8)
    there = resample(labels, source, finer, order=0, dtype=np.uint8)
    back = resample(there, finer, source, order=0, dtype=np.uint8)
    np.testing.assert_array_equal(back, labels)
