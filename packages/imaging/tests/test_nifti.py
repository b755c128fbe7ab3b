"""Reading and writing NIfTI files."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from innereye_core.errors import InputError, UsageError
from innereye_imaging.geometry import Image
from innereye_imaging.nifti import Nifti

Write = Callable[..., Path]
VOXELS = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
LPS = np.diag([-1.0, -2.0, 3.0, 1.0])


def save(path: Path, image: nib.Nifti1Image) -> Path:
    nib.save(image, path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
def test_voxels_become_z_y_x_and_keep_their_type(write_nifti: Write, name: str) -> None:
    image = Nifti().read(write_nifti(VOXELS, LPS, name))
    np.testing.assert_array_equal(image.voxels, VOXELS)
    assert image.voxels.dtype == np.int16
    np.testing.assert_array_equal(image.affine, LPS)
    assert image.orientation_known


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("byte_order", "<>")
def test_every_real_voxel_type_and_byte_order_is_read(tmp_path: Path, dtype: str, byte_order: str) -> None:
    header = nib.Nifti1Header(endianness=byte_order)
    image = nib.Nifti1Image(VOXELS.T.astype(dtype), LPS, header, dtype=dtype)
    assert image.header.endianness == byte_order
    found = Nifti().read(save(tmp_path / "a.nii.gz", image)).voxels
    np.testing.assert_array_equal(found, VOXELS)
    assert found.dtype == np.dtype(dtype)
    assert found.dtype.isnative


def test_scaling_of_the_header_is_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS.T, LPS)
    image.header.set_slope_inter(0.5, -1000)
    path = tmp_path / "scaled.nii"
    with path.open("wb") as file:  # written by hand: nibabel would choose its own scaling
        header = image.header.copy()
        header["vox_offset"] = 352
        header["magic"] = b"n+1"
        file.write(header.binaryblock + b"\0" * 4 + VOXELS.tobytes())
    np.testing.assert_allclose(Nifti().read(path).voxels, VOXELS * 0.5 - 1000)


def test_nifti_2_is_read(tmp_path: Path) -> None:
    image = Nifti().read(save(tmp_path / "two.nii.gz", nib.Nifti2Image(VOXELS.T, LPS)))
    np.testing.assert_array_equal(image.voxels, VOXELS)


def test_a_single_time_point_is_dropped(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", nib.Nifti1Image(VOXELS.T[..., None], LPS))
    np.testing.assert_array_equal(Nifti().read(path).voxels, VOXELS)


@pytest.mark.parametrize(("shape", "dimensions"), [((4, 3), "2-D"), ((4, 3, 2, 5), "4-D")])
def test_images_that_are_not_3d_are_refused(tmp_path: Path, shape: tuple[int, ...], dimensions: str) -> None:
    path = save(tmp_path / "a.nii.gz", nib.Nifti1Image(np.zeros(shape, np.uint8), LPS))
    with pytest.raises(InputError, match=f"a.nii.gz: is {dimensions} with shape"):
        Nifti().read(path)


@pytest.mark.parametrize(
    ("voxel", "name"),
    [([("R", "u1"), ("G", "u1"), ("B", "u1")], "RGB"), (np.complex64, "complex64")],
    ids=["rgb", "complex"],
)
def test_voxels_that_are_not_one_number_are_refused(tmp_path: Path, voxel: object, name: str) -> None:
    path = save(tmp_path / "a.nii.gz", nib.Nifti1Image(np.zeros((4, 3, 2), np.dtype(voxel)), LPS))
    with pytest.raises(InputError, match=f"holds {name} voxels"):
        Nifti().read(path)


def test_other_units_than_millimetres_are_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS.T, LPS)
    image.header.set_xyzt_units("meter")
    with pytest.raises(InputError, match="states its geometry in metres; write it in mm"):
        Nifti().read(save(tmp_path / "a.nii.gz", image))


def test_a_file_without_orientation_says_so(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS.T, None)
    image.header.set_zooms((1, 2, 3))
    found = Nifti().read(save(tmp_path / "a.nii.gz", image))
    assert not found.orientation_known
    assert found.grid.spacing_xyz_mm == pytest.approx((1, 2, 3))


def test_sform_and_qform_that_point_to_different_sides_are_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS.T, LPS)
    image.set_sform(LPS, 1)
    image.set_qform(np.diag([1.0, -2.0, 3.0, 1.0]), 1)
    with pytest.raises(InputError, match="its sform says LPS, its qform RPS"):
        Nifti().read(save(tmp_path / "a.nii.gz", image))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kept", [0, 2, 100, 0.9])
def test_truncated_files_are_refused(write_nifti: Write, name: str, kept: float) -> None:
    path = write_nifti(np.random.default_rng(0).integers(0, 999, (9, 9, 9)).astype(np.int16), LPS, name)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content) if isinstance(kept, float) else kept)])
    with pytest.raises(InputError, match=r"cannot be read as NIfTI; it is damaged") as refusal:
        Nifti().read(path)
    assert "\n" not in str(refusal.value)


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path: Path) -> None:
    nib.save(
        nib.Nifti1Image(np.random.default_rng(0).integers(0, 9, (40, 40, 40)).astype(np.int16), LPS), tmp_path / "a.nii"
    )
    path = tmp_path / "a.nii.gz"
    content = bytearray(
        gzip.compress((tmp_path / "a.nii").read_bytes(), compresslevel=0)
    )  # stored, so that any bit fits
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="CRC check failed"):
        Nifti().read(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_other_content_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"this is no image" * 100)
    with pytest.raises(InputError, match="cannot be read as NIfTI"):
        Nifti().read(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_what_is_written_is_what_is_read(tmp_path: Path, name: str) -> None:
    labels = VOXELS.astype(np.uint8)
    Nifti().write(tmp_path / name, Image(labels, LPS))
    found = nib.load(tmp_path / name)
    assert found.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asanyarray(found.dataobj).T, labels)
    np.testing.assert_array_equal(found.get_sform(), LPS)
    np.testing.assert_allclose(found.get_qform(), LPS)
    assert (int(found.header["sform_code"]), int(found.header["qform_code"])) == (1, 1)


def test_posteriors_are_written_with_the_class_last(tmp_path: Path) -> None:
    posteriors = np.random.default_rng(0).random((5, 2, 3, 4)).astype(np.float32)
    Nifti().write(tmp_path / "p.nii.gz", Image(posteriors, LPS))
    found = nib.load(tmp_path / "p.nii.gz")
    assert found.shape == (4, 3, 2, 5)
    np.testing.assert_array_equal(found.get_fdata(dtype=np.float32)[..., 3].T, posteriors[3])


def test_equal_images_are_equal_bytes_whatever_their_name_and_time(tmp_path: Path) -> None:
    for name in ("one.nii.gz", "another.nii.gz"):
        Nifti().write(tmp_path / name, Image(VOXELS, LPS))
    content = (tmp_path / "one.nii.gz").read_bytes()
    assert content == (tmp_path / "another.nii.gz").read_bytes()
    assert content[3] == 0  # no file name
    assert content[4:8] == bytes(4)  # no time


def test_an_unknown_orientation_is_not_made_up_when_writing(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(VOXELS.T, None), tmp_path / "in.nii.gz")
    image = Nifti().read(tmp_path / "in.nii.gz")
    Nifti().write(tmp_path / "out.nii.gz", image)
    again = Nifti().read(tmp_path / "out.nii.gz")
    assert not again.orientation_known
    np.testing.assert_allclose(again.affine, image.affine)


def test_types_that_nifti_does_not_know_are_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot hold voxels of type float16"):
        Nifti().write(tmp_path / "a.nii", Image(VOXELS.astype(np.float16), LPS))


def test_real_scans_are_read_as_nibabel_reads_them(real_data: Path) -> None:
    path = real_data / "innereye" / "scan_small.nii.gz"
    image, reference = Nifti().read(path), nib.load(path)
    np.testing.assert_array_equal(image.voxels.T, np.asanyarray(reference.dataobj))
    np.testing.assert_array_equal(image.affine, reference.affine)
    assert image.grid.axis_codes == "LPS"
