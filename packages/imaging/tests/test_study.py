"""Preparing a study: what is checked, refused and repaired about a patient's images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from innereye_core.config import CTWindow, ModelConfig, MRIWindow
from innereye_core.errors import InputError
from innereye_imaging.geometry import Image
from innereye_imaging.itk_formats import Nrrd
from innereye_imaging.nifti import Nifti
from innereye_imaging.study import Study, prepare_study, read_mask

Write = Callable[..., Path]
MakeConfig = Callable[..., ModelConfig]

CT = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
LPS = np.diag([-1.0, -1.0, 3.0, 1.0])


def outcome(study: Study, name: str) -> str:
    (check,) = [check for check in study.checks if check.name == name]
    return check.outcome


def test_voxels_stay_as_stored(write_nifti: Write, make_config: MakeConfig, installed: Any) -> None:
    study = prepare_study([write_nifti(CT, LPS)], make_config(input={"orientation": "LPS"}), installed)
    assert study.channels[0].dtype == np.int16
    np.testing.assert_array_equal(study.channels[0], CT)


def test_normalisation_is_found_once_per_channel(write_nifti: Write, make_config: MakeConfig, installed: Any) -> None:
    config = make_config(channels=("t1", "t2"), normalization=MRIWindow("mri_window", tail=(1.0, 2.0)))
    paths = [write_nifti(np.abs(CT), name="1.nii"), write_nifti(np.abs(CT) + CT % 7, name="2.nii")]
    first, second = prepare_study(paths, config, installed).intensity_maps
    assert first != second


def test_a_good_study_says_what_was_checked(write_nifti: Write, make_config: MakeConfig, installed: Any) -> None:
    config = make_config(input={"modality": "ct", "spacing_xyz_mm": (1.0, 1.0, 3.0), "orientation": "LPS"})
    study = prepare_study([write_nifti(CT, LPS)], config, installed)
    assert [(check.name, check.outcome) for check in study.checks] == [
        ("channels", "passed"),
        ("dimensions", "passed"),
        ("header", "passed"),
        ("values", "passed"),
        ("intensities", "passed"),
        ("precision", "passed"),
        ("orientation", "passed"),
        ("spacing", "passed"),
        ("field_of_view", "unchecked"),
    ]
    assert all(check.detail for check in study.checks)


def test_what_the_config_does_not_state_is_reported_as_unchecked(
    write_nifti: Write, make_config: MakeConfig, installed: Any
) -> None:
    study = prepare_study([write_nifti(CT, LPS)], make_config(), installed)
    for name in ("intensities", "orientation", "spacing", "field_of_view"):
        assert outcome(study, name) == "unchecked"


# --- refused ---


def test_the_number_of_images_must_be_that_of_channels(
    write_nifti: Write, make_config: MakeConfig, installed: Any
) -> None:
    config = make_config(channels=("ct", "pet"))
    with pytest.raises(InputError, match=r"1 image\(s\) given, but Test takes 2, in this order: ct, pet"):
        prepare_study([write_nifti(CT)], config, installed)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_values_are_refused_with_their_number(
    write_nifti: Write, make_config: MakeConfig, installed: Any, value: float
) -> None:
    voxels = CT.astype(np.float32)
    voxels[1, 2, 3:5] = value
    with pytest.raises(InputError, match=r"image\.nii\.gz: 2 voxels are NaN or infinite"):
        prepare_study([write_nifti(voxels)], make_config(), installed)


def test_a_constant_image_is_refused(write_nifti: Write, make_config: MakeConfig, installed: Any) -> None:
    with pytest.raises(InputError, match="every voxel is -1000"):
        prepare_study([write_nifti(np.full((3, 3, 3), -1000, np.int16))], make_config(), installed)


@pytest.mark.parametrize(
    "voxels", [(CT + 1000) / 2000, ((CT + 1000) // 8).astype(np.uint8)], ids=["scaled to 0…1", "scaled to bytes"]
)
def test_a_ct_that_is_not_in_hounsfield_units_is_refused(
    write_nifti: Write, make_config: MakeConfig, installed: Any, voxels: np.ndarray
) -> None:
    path = write_nifti(voxels)
    with pytest.raises(InputError, match="no Hounsfield units"):
        prepare_study([path], make_config(input={"modality": "ct"}), installed)
    prepare_study([path], make_config(input={"modality": "mr"}), installed)


@pytest.mark.parametrize(
    ("shape", "affine"), [((4, 5, 7), LPS), ((4, 5, 6), np.diag([-1.0, -1.0, 2.0, 1.0]))], ids=["shape", "affine"]
)
def test_channels_on_different_grids_are_refused_with_both(
    write_nifti: Write, make_config: MakeConfig, installed: Any, shape: tuple[int, ...], affine: np.ndarray
) -> None:
    paths = [write_nifti(CT, LPS, "ct.nii"), write_nifti(np.resize(CT, shape), affine, "pet.nii")]
    with pytest.raises(InputError, match=r"pet\.nii has .* but .*ct\.nii has 6 × 5 × 4 voxels of 1 × 1 × 3 mm"):
        prepare_study(paths, make_config(channels=("ct", "pet")), installed)


def test_another_spacing_is_refused_in_the_words_that_people_know(
    write_nifti: Write, make_config: MakeConfig, installed: Any
) -> None:
    config = make_config(input={"spacing_xyz_mm": (1.0, 1.0, 1.5)})
    with pytest.raises(InputError, match=r"^Input image has spacing \(1, 1, 3\) mm but expected \(1, 1, 1.5\) mm"):
        prepare_study([write_nifti(CT, LPS)], config, installed)


@pytest.mark.parametrize(("spacing", "accepted"), [(1.0, True), (1.05, False), (0.79, False), (0.8, True)])
def test_the_spacing_tolerance_is_absolute(
    write_nifti: Write, make_config: MakeConfig, installed: Any, spacing: float, accepted: bool
) -> None:
    """InnerEye added a relative term."""
    path = write_nifti(CT, np.diag([-spacing, -spacing, spacing, 1]))
    config = make_config(input={"spacing_xyz_mm": (0.9, 0.9, 0.9), "spacing_tolerance_mm": 0.1})
    if accepted:
        prepare_study([path], config, installed)
    else:
        with pytest.raises(InputError, match="Input image has spacing"):
            prepare_study([path], config, installed)


def test_rounding_of_the_header_does_not_exceed_the_tolerance(
    write_nifti: Write, make_config: MakeConfig, installed: Any
) -> None:
    """NIfTI stores 1.1 mm in single precision, a little above."""
    path = write_nifti(CT, np.diag([-1.1, -1.1, 1.1, 1]))
    config = make_config(input={"spacing_xyz_mm": (1.0, 1.0, 1.0), "spacing_tolerance_mm": 0.1})
    assert outcome(prepare_study([path], config, installed), "spacing") == "passed"


def test_spacing_is_compared_along_the_networks_axes(
    write_nifti: Write, make_config: MakeConfig, installed: Any
) -> None:
    """A file whose slices are sagittal has its 3 mm along another axis."""
    sagittal = np.array([[0, 0, 3, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    config = make_config(input={"spacing_xyz_mm": (3.0, 1.0, 1.0), "orientation": "LPS"})
    assert outcome(prepare_study([write_nifti(CT, sagittal)], config, installed), "spacing") == "passed"


def without_orientation(folder: Path) -> Path:
    nib.save(nib.Nifti1Image(CT.T, None), folder / "unknown.nii.gz")
    return folder / "unknown.nii.gz"


def test_an_unknown_orientation_is_refused_where_the_model_needs_one(
    tmp_path: Path, make_config: MakeConfig, installed: Any
) -> None:
    with pytest.raises(InputError, match=r"does not say how its axes lie in the patient .* the model needs LPS"):
        prepare_study([without_orientation(tmp_path)], make_config(input={"orientation": "LPS"}), installed)


def test_an_unknown_orientation_is_a_warning_otherwise(tmp_path: Path, make_config: MakeConfig, installed: Any) -> None:
    study = prepare_study([without_orientation(tmp_path)], make_config(), installed)
    assert outcome(study, "orientation") == "warning"
    assert not study.orientation_known


# --- repaired ---


def test_another_orientation_is_turned_and_reported(
    write_nifti: Write, make_config: MakeConfig, installed: Any
) -> None:
    study = prepare_study([write_nifti(CT, LPS)], make_config(input={"orientation": "RAS"}), installed)
    np.testing.assert_array_equal(study.channels[0], CT[:, ::-1, ::-1])
    assert study.working_grid.axis_codes == "RAS"
    assert study.input_grid.axis_codes == "LPS"
    assert outcome(study, "orientation") == "repaired"
    np.testing.assert_array_equal(study.labels_on_input_grid(study.channels[0]), CT)


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "ARS", "PLI", "SAR", "IPL"])
@pytest.mark.parametrize("degrees", [45, 135, -45])
def test_labels_come_back_where_rounding_decides_which_axis_is_nearest(
    write_nifti: Write, make_config: MakeConfig, installed: Any, orientation: str, degrees: float
) -> None:
    """At 45 degrees a turned grid may be nearest to other axes than those that it was turned to."""
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(z=np.radians(degrees), y=np.radians(45)))
    study = prepare_study([write_nifti(CT, affine)], make_config(input={"orientation": orientation}), installed)
    np.testing.assert_array_equal(study.labels_on_input_grid(study.channels[0]), CT)


def test_what_was_repaired_is_logged(
    write_nifti: Write, make_config: MakeConfig, installed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "innereye_imaging"):
        prepare_study([write_nifti(CT.astype(np.int32), LPS)], make_config(input={"orientation": "RAS"}), installed)
    assert [record.getMessage().rpartition(": ")[0] for record in caplog.records] == [
        "repaired: precision: image.nii.gz",
        "repaired: orientation",
    ]


def test_another_spacing_is_resampled_where_the_config_says_so(
    write_nifti: Write, make_config: MakeConfig, installed: Any
) -> None:
    config = make_config(input={"spacing_xyz_mm": (0.5, 0.5, 1.5), "on_mismatch": "resample"})
    study = prepare_study([write_nifti(CT, LPS)], config, installed)
    assert study.channels[0].shape == (8, 10, 12)
    assert study.channels[0].dtype == np.float32
    assert outcome(study, "spacing") == "repaired"
    labels = (CT > 0).astype(np.uint8).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(study.labels_on_input_grid(labels), CT > 0)
    posteriors = study.posteriors_on_input_grid(np.stack([study.channels[0], np.ones_like(study.channels[0])]))
    assert posteriors.shape == (2, 4, 5, 6)
    np.testing.assert_allclose(posteriors[1], 1)


def test_a_spacing_within_the_tolerance_is_not_resampled(
    write_nifti: Write, make_config: MakeConfig, installed: Any
) -> None:
    config = make_config(input={"spacing_xyz_mm": (1.05, 1.0, 3.0), "on_mismatch": "resample"})
    study = prepare_study([write_nifti(CT, LPS)], config, installed)
    assert study.channels[0].dtype == np.int16


def test_normalisation_is_found_on_what_the_network_sees(
    write_nifti: Write, make_config: MakeConfig, installed: Any
) -> None:
    windowed = make_config(input={"orientation": "RAS"}, normalization=CTWindow("ct_window", level=0, window=100))
    study = prepare_study([write_nifti(CT, LPS)], windowed, installed)
    normalised = study.intensity_maps[0].apply(study.channels[0])
    np.testing.assert_allclose(normalised, np.clip(CT[:, ::-1, ::-1] / 50, -1, 1))


def test_channels_may_come_in_different_formats(
    tmp_path: Path, write_nifti: Write, make_config: MakeConfig, installed: Any
) -> None:
    first = write_nifti(CT, LPS)
    Nrrd().write(tmp_path / "pet.nrrd", Nifti().read(first))
    study = prepare_study([first, tmp_path / "pet.nrrd"], make_config(channels=("ct", "pet")), installed)
    np.testing.assert_array_equal(study.channels[0], study.channels[1])


# --- masks ---


@pytest.fixture
def study(write_nifti: Write, make_config: MakeConfig, installed: Any) -> Study:
    return prepare_study([write_nifti(CT, LPS)], make_config(input={"orientation": "RAS"}), installed)


@pytest.mark.parametrize("value", [1, 255])
def test_a_mask_is_read_on_the_grid_of_the_files(study: Study, write_nifti: Write, installed: Any, value: int) -> None:
    path = write_nifti(((CT > 0) * value).astype(np.uint8), LPS, "mask.nii.gz")
    np.testing.assert_array_equal(read_mask(path, study, installed), CT > 0)


def test_an_empty_mask_is_a_mask(study: Study, write_nifti: Write, installed: Any) -> None:
    assert not read_mask(write_nifti(np.zeros_like(CT), LPS, "mask.nii"), study, installed).any()


@pytest.mark.parametrize(
    ("voxels", "affine", "what"),
    [
        (CT[:, :, 1:], LPS, "5 × 5 × 4 voxels"),
        (CT, np.diag([1.0, -1.0, 3.0, 1.0]), "RPS"),
    ],
    ids=["shape", "affine"],
)
def test_a_mask_on_another_grid_is_refused_with_both(
    study: Study, write_nifti: Write, installed: Any, voxels: np.ndarray, affine: np.ndarray, what: str
) -> None:
    path = write_nifti((voxels > 0).astype(np.uint8), affine, "mask.nii")
    with pytest.raises(InputError, match=rf"Mask .*mask\.nii has .*{what}.* the image it belongs to has 6 × 5 × 4"):
        read_mask(path, study, installed)


def test_a_mask_of_several_structures_is_refused(study: Study, write_nifti: Write, installed: Any) -> None:
    with pytest.raises(InputError, match="holds several values besides 0"):
        read_mask(write_nifti(np.abs(CT), LPS, "mask.nii"), study, installed)


def test_the_mask_image_type_of_other_formats_is_fine(study: Study, tmp_path: Path, installed: Any) -> None:
    Nrrd().write(tmp_path / "mask.nrrd", Image((CT > 0).astype(np.uint8), LPS))
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nrrd", study, installed), CT > 0)
