"""Orientation, grids and resampling."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innereye_core.errors import InputError
from innereye_core.model import SizeZYX
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


# --- for any grid ---

PROPERTY = settings(max_examples=150, deadline=None, derandomize=True)

SIZES = st.tuples(*[st.integers(1, 9)] * 3)
SPACINGS = st.tuples(*[st.floats(0.2, 8)] * 3)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Any size from 1 × 1 × 1, any voxel size, flipped or not, turned by any angles; 45° is on every border."""
    angles = [draw(st.one_of(st.sampled_from([0, 45, 90, -135]), st.floats(-180, 180))) for _ in range(3)]
    rotation = nib.eulerangles.euler2mat(*np.radians(angles))
    flips = [draw(st.sampled_from([1, -1])) for _ in range(3)]
    origin = [draw(st.floats(-500, 500)) for _ in range(3)]
    affine = nib.affines.from_matvec(rotation @ np.diag(np.multiply(draw(SPACINGS), flips)), origin)
    return Grid(draw(SIZES), affine)


@PROPERTY
@given(grid=grids(), codes=st.sampled_from(ALL_ORIENTATIONS))
def test_any_grid_can_be_turned_to_any_orientation_and_back(grid: Grid, codes: str) -> None:
    image = Image(np.arange(np.prod(grid.size_zyx)).reshape(grid.size_zyx), grid.affine)
    turned = reorient(image, codes)
    z, y, x = np.indices(turned.voxels.shape)
    world = np.einsum("ij,j...->i...", turned.affine, np.stack([x, y, z, np.ones_like(x)]))
    z, y, x = np.indices(image.voxels.shape)
    stored = np.einsum("ij,j...->i...", image.affine, np.stack([x, y, z, np.ones_like(x)]))
    np.testing.assert_allclose(
        world.reshape(4, -1)[:, np.argsort(turned.voxels.ravel())], stored.reshape(4, -1), atol=1e-6
    )
    np.testing.assert_array_equal(restore_axes(turned.voxels, codes, grid.axis_codes), image.voxels)


@PROPERTY
@given(grid=grids(), spacing=SPACINGS)
def test_a_resampled_grid_covers_the_box_of_any_grid_to_half_a_voxel(
    grid: Grid, spacing: tuple[float, float, float]
) -> None:
    other = resampled_grid(grid, spacing)
    assert other.spacing_xyz_mm == pytest.approx(spacing)
    assert min(other.size_zyx) >= 1
    outer_corner = np.array([-0.5, -0.5, -0.5, 1])
    np.testing.assert_allclose(other.affine @ outer_corner, grid.affine @ outer_corner, atol=1e-6)
    length, covered = (np.multiply(one.size_zyx[::-1], one.spacing_xyz_mm) for one in (grid, other))
    assert (
        np.abs(length - covered) <= np.where(np.equal(other.size_zyx[::-1], 1), np.inf, np.divide(spacing, 2) + 1e-9)
    ).all()


@PROPERTY
@given(grid=grids(), spacing=SPACINGS, seed=st.integers(0, 99))
def test_interpolated_posteriors_still_sum_to_1(grid: Grid, spacing: tuple[float, float, float], seed: int) -> None:
    posteriors = np.random.default_rng(seed).dirichlet((1, 1, 1), grid.size_zyx).astype(np.float32)
    other = resampled_grid(grid, spacing)
    there = [resample(posteriors[..., i], grid, other, order=1, dtype=np.float32) for i in range(3)]
    back = [resample(posterior, other, grid, order=1, dtype=np.float32) for posterior in there]
    np.testing.assert_allclose(np.sum(there, axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(np.sum(back, axis=0), 1, atol=1e-5)
    assert np.min(back) >= -1e-6


@PROPERTY
@given(grid=grids(), factors=st.tuples(*[st.integers(1, 3)] * 3), seed=st.integers(0, 99))
def test_labels_come_back_unchanged_from_any_finer_grid(grid: Grid, factors: SizeZYX, seed: int) -> None:
    finer = resampled_grid(grid, tuple(np.divide(grid.spacing_xyz_mm, factors)))
    labels = np.random.default_rng(seed).integers(0, 4, grid.size_zyx).astype(np.uint8)
    there = resample(labels, grid, finer, order=0, dtype=np.uint8)
    np.testing.assert_array_equal(there, labels.repeat(factors[2], 0).repeat(factors[1], 1).repeat(factors[0], 2))
    np.testing.assert_array_equal(resample(there, finer, grid, order=0, dtype=np.uint8), labels)


@PROPERTY
@given(grid=grids())
def test_obliqueness_is_the_angle_to_the_nearest_axes(grid: Grid) -> None:
    assert 0 <= grid.obliqueness_degrees <= 54.74
    straight = Grid(grid.size_zyx, np.diag([*grid.spacing_xyz_mm, 1.0]))
    assert straight.obliqueness_degrees == pytest.approx(0, abs=1e-5)
