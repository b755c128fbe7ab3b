"""The input contract: every check of a study passes, says what was repaired, warns, or refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from innereye_core.config import ModelConfig
from innereye_core.errors import InputError
from innereye_core.model import Check
from innereye_imaging.study import prepare_study

Write = Callable[..., Path]
MakeConfig = Callable[..., ModelConfig]

CT = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
LPS = np.diag([-1.0, -1.0, 3.0, 1.0])


@pytest.fixture
def check(make_config: MakeConfig, installed: Any) -> Callable[..., Check]:
    """The check of that name about image files."""

    def find(name: str, *paths: Path, config: ModelConfig | None = None, **expected: Any) -> Check:
        channels = tuple(f"channel{i}" for i in range(len(paths)))
        study = prepare_study(paths, config or make_config(channels=channels, input=expected), installed)
        (found,) = [check for check in study.checks if check.name == name]
        return found

    return find


def between(lowest: float, highest: float, dtype: str = "f4") -> np.ndarray:
    return np.linspace(lowest, highest, 4 * 5 * 6).reshape(4, 5, 6).astype(dtype)


# --- dimensions and header ---


def test_a_single_time_point_is_repaired(tmp_path: Path, check: Callable[..., Check]) -> None:
    nib.save(nib.Nifti1Image(CT.T[..., None], LPS), tmp_path / "a.nii.gz")
    found = check("dimensions", tmp_path / "a.nii.gz")
    assert found == Check("dimensions", "repaired", "a.nii.gz: 4-D (6 × 5 × 4 × 1) with one image, read as 3-D")


def test_several_time_points_are_refused(tmp_path: Path, check: Callable[..., Check]) -> None:
    nib.save(nib.Nifti1Image(np.stack([CT.T, CT.T], axis=-1), LPS), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=r"a\.nii\.gz: is 4-D with shape \(6, 5, 4, 2\); extract one 3-D image first"):
        check("dimensions", tmp_path / "a.nii.gz")


def test_a_doubt_about_one_channels_header_names_the_channel(
    tmp_path: Path, write_nifti: Write, check: Callable[..., Check]
) -> None:
    image = nib.Nifti1Image(CT.T, LPS)
    image.set_sform(LPS, 1)
    image.set_qform(LPS + np.array([[0, 0, 0, 7.0], *np.zeros((3, 4))]), 1)
    nib.save(image, tmp_path / "shifted.nii.gz")
    found = check("header", write_nifti(CT, LPS), tmp_path / "shifted.nii.gz")
    assert found.outcome == "warning"
    assert found.detail == "shifted.nii.gz: sform and qform place voxels up to 7 mm apart; the sform is used"


@pytest.mark.parametrize("shape", [(1, 5, 6), (4, 1, 6), (4, 5, 1), (1, 1, 6)])
def test_axes_of_one_voxel_are_fine(write_nifti: Write, check: Callable[..., Check], shape: tuple[int, ...]) -> None:
    assert check("dimensions", write_nifti(np.resize(CT, shape), LPS)).outcome == "passed"


# --- values and intensities ---


def test_values_beyond_single_precision_are_refused(write_nifti: Write, check: Callable[..., Check]) -> None:
    with pytest.raises(InputError, match=r"image\.nii\.gz: values from -1e\+39 to 5 are too large; repair the image"):
        check("values", write_nifti(between(-1e39, 5, "f8")))


@pytest.mark.parametrize(
    ("modality", "lowest", "highest", "outcome", "words"),
    [
        ("ct", -1207, 3382, "passed", "from -1207 to 3382"),
        ("ct", -2048, 4095, "passed", "as a CT may have"),
        ("ct", -3024, 3071, "warning", "outside of the usual -2048 to 4095 HU"),
        ("ct", -1000, 64512, "warning", "outside of the usual -2048 to 4095 HU"),
        ("ct", 0, 4095, "warning", "was the rescale intercept left out?"),
        ("ct", -1024, -200, "warning", "nothing above 0 HU"),
        ("ct", -1, 1, "warning", "was the CT scaled?"),
        ("mr", 0, 1718, "passed", "as a MR may have"),
        ("mr", -2.5, 4, "warning", "were they normalised already?"),
        ("pt", -0.1, 12, "passed", "as a PT may have"),
        (None, -7, 7, "unchecked", "the model names no modality"),
    ],
)
def test_unusual_intensities_are_a_warning(
    write_nifti: Write,
    check: Callable[..., Check],
    modality: str | None,
    lowest: float,
    highest: float,
    outcome: str,
    words: str,
) -> None:
    found = check("intensities", write_nifti(between(lowest, highest)), modality=modality)
    assert (found.outcome, words in found.detail) == (outcome, True), found.detail


@pytest.mark.parametrize(("lowest", "highest"), [(0, 1), (0.2, 0.9), (0, 255), (3, 200)])
def test_a_scaled_ct_is_refused(write_nifti: Write, check: Callable[..., Check], lowest: float, highest: float) -> None:
    with pytest.raises(InputError, match=f"values from {lowest} to {highest} are no Hounsfield units"):
        check("intensities", write_nifti(between(lowest, highest)), modality="ct")


@pytest.mark.parametrize("modality", ["mr", "pt", None])
def test_a_mask_in_place_of_an_image_is_a_warning(
    write_nifti: Write, check: Callable[..., Check], modality: str | None
) -> None:
    found = check("intensities", write_nifti((CT > 0).astype(np.uint8)), modality=modality)
    assert (found.outcome, found.detail) == ("warning", "image.nii.gz: from 0 to 1, only two values: is it a mask?")


def test_real_scans_are_no_cause_for_a_warning(real_data: Path, check: Callable[..., Check]) -> None:
    for name in ("totalsegmentator/example_ct.nii.gz", "innereye/scan_small.nii.gz"):
        assert check("intensities", real_data / name, modality="ct").outcome == "passed"


# --- precision ---


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "f4"])
def test_small_types_are_exact_in_single_precision(write_nifti: Write, check: Callable[..., Check], dtype: str) -> None:
    found = check("precision", write_nifti(between(0, 100, dtype)))
    assert found == Check("precision", "passed", f"{np.dtype(dtype)}, exact in single precision")


@pytest.mark.parametrize("dtype", ["i4", "u4", "i8", "u8", "f8"])
def test_large_types_are_cast(write_nifti: Write, check: Callable[..., Check], dtype: str) -> None:
    found = check("precision", write_nifti(between(0, 100, dtype), name="big.nii"))
    detail = f"big.nii: {np.dtype(dtype)} cast to single precision for the network"
    assert found == Check("precision", "repaired", detail)


# --- orientation ---


def rotated(degrees: float) -> np.ndarray:
    return nib.affines.from_matvec(nib.eulerangles.euler2mat(z=np.radians(degrees)) @ np.diag([-1.0, -1.0, 3.0]))


@pytest.mark.parametrize(
    ("degrees", "orientation", "outcome"),
    [
        (0, "LPS", "passed"),
        (20, "LPS", "passed"),
        (20, "RAS", "repaired"),
        (40, "LPS", "warning"),
        (40, "RAS", "warning"),
    ],
)
def test_oblique_axes_are_warned_of_where_it_is_hardly_clear_which_axis_they_are(
    write_nifti: Write, check: Callable[..., Check], degrees: float, orientation: str, outcome: str
) -> None:
    found = check("orientation", write_nifti(CT, rotated(degrees)), orientation=orientation)
    assert found.outcome == outcome
    assert ("oblique by 40°" in found.detail) == (degrees == 40)


# --- spacing ---


def test_resampling_to_an_impossible_size_is_refused(write_nifti: Write, check: Callable[..., Check]) -> None:
    """As where the header gives metres as millimetres."""
    path = write_nifti(CT, np.diag([-1000.0, -1000.0, 3000.0, 1.0]))
    with pytest.raises(InputError, match=r"6 × 5 × 4 voxels of 1000 × .* would become 60000 × .* voxel size right\?"):
        check("spacing", path, spacing_xyz_mm=(0.1, 0.1, 3.0), spacing_tolerance_mm=0.01, on_mismatch="resample")


# --- field of view ---


@pytest.fixture
def config_with_geometry(make_config: MakeConfig) -> Callable[..., ModelConfig]:
    """A packaged config, which says what the network needs."""

    def make(minimum: tuple[int, int, int] = (4, 4, 4), **others: Any) -> ModelConfig:
        config = make_config((8, 8, 8), channels=("channel0",), **others)
        network = dataclasses.replace(
            config.network, size_multiple_zyx=(4, 4, 4), minimum_size_zyx=minimum, output_size_zyx=(8, 8, 8)
        )
        return dataclasses.replace(config, network=network)

    return make


def test_an_image_as_large_as_the_network_needs(
    write_nifti: Write, check: Callable[..., Check], config_with_geometry: Callable[..., ModelConfig]
) -> None:
    path = write_nifti(np.resize(CT, (8, 9, 16)), LPS)
    found = check("field_of_view", path, config=config_with_geometry())
    assert found == Check("field_of_view", "passed", "8 × 9 × 16 (z × y × x) in 4 patch(es) of 8 × 8 × 8")


def test_smaller_patches_for_a_small_image_are_reported(
    write_nifti: Write, check: Callable[..., Check], config_with_geometry: Callable[..., ModelConfig]
) -> None:
    found = check("field_of_view", write_nifti(CT, LPS), config=config_with_geometry())
    assert found.outcome == "passed"
    assert found.detail.endswith("1 patch(es) of 4 × 8 × 8, made smaller than 8 × 8 × 8 to fit the image")


def test_an_image_below_what_the_network_needs_is_refused_before_it_is_loaded(
    write_nifti: Write, check: Callable[..., Check], config_with_geometry: Callable[..., ModelConfig]
) -> None:
    with pytest.raises(InputError, match=r"Input image has 4 × 5 × 6 voxels .* needs at least 8 × 4 × 4"):
        check("field_of_view", write_nifti(CT, LPS), config=config_with_geometry((8, 4, 4)))


def test_the_field_of_view_is_that_of_the_networks_axes_and_spacing(
    write_nifti: Write, check: Callable[..., Check], config_with_geometry: Callable[..., ModelConfig]
) -> None:
    expected = {"orientation": "SLP", "spacing_xyz_mm": (1.5, 1.0, 1.0), "on_mismatch": "resample"}
    found = check("field_of_view", write_nifti(CT, LPS), config=config_with_geometry(input=expected))
    assert found.detail.startswith("5 × 6 × 8 (z × y × x)")
