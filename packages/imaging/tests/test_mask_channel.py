"""A mask confines the segmentation: outside it there is background with probability 1, whatever comes after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from innereye_core.config import LargestComponent, ModelConfig, PostprocessingConfig, SimpleNorm
from innereye_core.errors import InputError
from innereye_imaging.pipeline import Segmentation, segment
from innereye_imaging.study import prepare_study

Write = Callable[..., Path]
MakeConfig = Callable[..., ModelConfig]

LPS = np.diag([-1.0, -1.0, 2.0, 1.0])
IMAGE = np.random.default_rng(0).random((8, 9, 10)).astype(np.float32)
BOX = np.zeros((8, 9, 10), np.uint8)
BOX[2:7, 1:6, 3:8] = 1
INSIDE = BOX > 0


@pytest.fixture
def masked(
    write_nifti: Write, make_config: MakeConfig, installed: Any, numpy_network: Any, identity: Any
) -> Callable[..., Segmentation]:
    """Segment the image, where the organ is as probable as the value says, within a mask."""

    def run(
        mask: np.ndarray | None = BOX, members: int = 1, uncertainty: bool = False, **settings: Any
    ) -> Segmentation:
        config = make_config(**settings)
        path = None if mask is None else write_nifti(mask, LPS, "mask.nii.gz")
        study = prepare_study([write_nifti(IMAGE, LPS)], config, installed, mask=path)
        networks = [
            numpy_network(lambda patches, power=power: identity(patches**power)) for power in range(1, members + 1)
        ]
        return segment(study, networks, config, posteriors=True, uncertainty=uncertainty)

    return run


def assert_background(found: Segmentation, outside: np.ndarray) -> None:
    assert found.posteriors is not None
    assert not found.labels[outside].any()
    assert (found.posteriors[0, outside] == 1).all()
    assert (found.posteriors[1:, outside] == 0).all()


@pytest.mark.parametrize("stitching", ["average", "crop", "gaussian"])
@pytest.mark.parametrize("members", [1, 3])
def test_outside_is_background_and_inside_nothing_changes(
    masked: Callable[..., Segmentation], stitching: str, members: int
) -> None:
    settings = {"members": members, "stitching": stitching, "stride_zyx": (2, 2, 4)}
    found, free = masked(**settings), masked(None, **settings)
    assert_background(found, ~INSIDE)
    assert found.posteriors is not None
    assert free.posteriors is not None
    np.testing.assert_array_equal(found.posteriors[:, INSIDE], free.posteriors[:, INSIDE])
    np.testing.assert_array_equal(found.labels[INSIDE], free.labels[INSIDE])


@pytest.mark.parametrize("orientation", ["RAS", "SAL", "PIR"])
def test_the_mask_is_turned_with_the_image(masked: Callable[..., Segmentation], orientation: str) -> None:
    found = masked(input={"orientation": orientation})
    np.testing.assert_array_equal(found.labels, (IMAGE > 0.5) & INSIDE)
    assert_background(found, ~INSIDE)


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 1.1), (1.4, 1.6, 3.0)], ids=["finer", "coarser"])
def test_a_resampled_study_keeps_to_the_mask_on_the_files_grid(
    masked: Callable[..., Segmentation], spacing: tuple[float, float, float]
) -> None:
    expected = {"orientation": "RAS", "spacing_xyz_mm": spacing, "on_mismatch": "resample"}
    found, free = (masked(mask, uncertainty=True, members=2, input=expected) for mask in (BOX, None))
    assert_background(found, ~INSIDE)
    assert found.uncertainty is not None
    assert found.uncertainty.disagreement is not None
    assert not found.uncertainty.entropy[~INSIDE].any()
    assert not found.uncertainty.disagreement[~INSIDE].any()
    core = np.zeros_like(INSIDE)
    core[4:5, 3:4, 5:6] = True  # away from the mask's border, which interpolation reaches
    np.testing.assert_array_equal(found.labels[core], free.labels[core])


def test_smoothing_sees_the_mask_and_does_not_cross_it(masked: Callable[..., Segmentation]) -> None:
    """InnerEye smooths the posteriors that the mask has changed; what this blurs over the border is taken back."""
    import scipy.ndimage

    found = masked(postprocessing=PostprocessingConfig(posterior_smoothing_zyx_mm=(2.0, 1.0, 1.0)))
    assert found.posteriors is not None
    smooth = scipy.ndimage.gaussian_filter(np.where(INSIDE, IMAGE, 0), 1)
    np.testing.assert_allclose(found.posteriors[1][INSIDE], smooth[INSIDE], atol=1e-6)
    assert_background(found, ~INSIDE)


def test_the_largest_component_is_looked_for_inside(
    write_nifti: Write, make_config: MakeConfig, installed: Any, numpy_network: Any, identity: Any
) -> None:
    image = np.zeros((4, 4, 12), np.float32)
    image[:, :, :5] = image[1, 1, 8:10] = 1
    mask = np.zeros_like(image, np.uint8)
    mask[:, :, 6:] = 1
    config = make_config(postprocessing=PostprocessingConfig(largest_component=(LargestComponent("organ"),)))
    study = prepare_study([write_nifti(image)], config, installed, mask=write_nifti(mask, name="mask.nii"))
    labels = segment(study, [numpy_network(identity)], config).labels
    np.testing.assert_array_equal(np.argwhere(labels), [[1, 1, 8], [1, 1, 9]])


def test_normalisation_is_that_of_the_whole_image(write_nifti: Write, make_config: MakeConfig, installed: Any) -> None:
    config = make_config(normalization=SimpleNorm("simple_norm"))
    image, mask = write_nifti(IMAGE, LPS), write_nifti(BOX, LPS, "mask.nii.gz")
    free, confined = prepare_study([image], config, installed), prepare_study([image], config, installed, mask=mask)
    assert confined.intensity_maps == free.intensity_maps


@pytest.mark.parametrize("value", [1, 255, -1])
def test_any_one_value_besides_0_is_inside(masked: Callable[..., Segmentation], value: int) -> None:
    assert_background(masked(BOX.astype(np.int16) * value), ~INSIDE)


def test_a_mask_of_everything_changes_nothing(masked: Callable[..., Segmentation]) -> None:
    np.testing.assert_array_equal(masked(np.ones_like(BOX)).posteriors, masked(None).posteriors)


def test_the_checks_tell_how_much_is_inside(write_nifti: Write, make_config: MakeConfig, installed: Any) -> None:
    image, mask = write_nifti(IMAGE, LPS), write_nifti(BOX, LPS, "mask.nii.gz")
    check = prepare_study([image], make_config(), installed, mask=mask).checks[-1]
    assert (check.name, check.outcome) == ("mask", "passed")
    assert check.detail == "mask.nii.gz: 125 of 720 voxels inside, the rest is background"


@pytest.mark.parametrize(
    ("mask", "affine", "problem"),
    [
        (np.zeros_like(BOX), LPS, "has no voxel that is not 0, so that nothing could be found"),
        (BOX + BOX * INSIDE.cumsum(axis=0).astype(np.uint8), LPS, "holds several values besides 0"),
        (np.where(INSIDE, np.nan, 0).astype(np.float32), LPS, "holds several values besides 0"),
        (BOX[1:], LPS, r"has 10 × 9 × 7 voxels .*, but the image it belongs to has 10 × 9 × 8"),
        (BOX, np.diag([-1.0, -1.0, -2.0, 1.0]), r"has .* LPI, .*, but the image it belongs to has .* LPS"),
    ],
    ids=["empty", "several structures", "NaN", "another shape", "another orientation"],
)
def test_a_mask_that_cannot_be_meant_is_refused(
    write_nifti: Write, make_config: MakeConfig, installed: Any, mask: np.ndarray, affine: np.ndarray, problem: str
) -> None:
    image, path = write_nifti(IMAGE, LPS), write_nifti(mask, affine, "mask.nii.gz")
    with pytest.raises(InputError, match=rf"Mask .*mask\.nii\.gz {problem}"):
        prepare_study([image], make_config(), installed, mask=path)


def test_a_mask_that_falls_between_the_voxels_of_a_coarser_grid_is_refused(
    write_nifti: Write, make_config: MakeConfig, installed: Any
) -> None:
    speck = np.zeros_like(BOX)
    speck[0, 0, 0] = 1
    config = make_config(input={"spacing_xyz_mm": (5.0, 4.5, 8.0), "on_mismatch": "resample"})
    with pytest.raises(InputError, match="has no voxel that is not 0"):
        prepare_study([write_nifti(IMAGE, LPS)], config, installed, mask=write_nifti(speck, LPS, "mask.nii"))


def test_a_mask_with_a_single_time_point_is_read(masked: Callable[..., Segmentation], tmp_path: Path) -> None:
    """write_nifti transposes, so that the axis of length 1 becomes the file's last."""
    assert_background(masked(BOX[None]), ~INSIDE)
    assert nib.load(tmp_path / "mask.nii.gz").shape == (10, 9, 8, 1)
