"""What a NIfTI header may say, and every contradiction in it that is refused instead of guessed about."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from innereye_core.errors import InputError
from innereye_core.model import Check
from innereye_imaging.geometry import Image
from innereye_imaging.nifti import Nifti

VOXELS = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
LPS = np.diag([-1.0, -2.0, 3.0, 1.0])
QFORM_CODED = {"sform_code": 0, "qform_code": 1}
NO_FORM = {"sform_code": 0, "qform_code": 0}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a file whose header fields are set byte by byte: nibabel would repair them."""

    def make(kind: type[Any] = nib.Nifti1Header, after: bytes = b"", name: str = "a.nii", **fields: Any) -> Path:
        header = kind()
        header.set_data_dtype(np.int16)
        header.set_data_shape(VOXELS.T.shape)
        header.set_sform(LPS, 1)
        header.set_qform(LPS, 0)
        header["magic"] = header.single_magic
        header["vox_offset"] = header.single_vox_offset
        for field, value in fields.items():
            header[field] = value
        content = header.binaryblock + b"\0" * 4 + VOXELS.tobytes() + after
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return make


@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
def test_the_file_as_it_should_be(write: Callable[..., Path], kind: type[Any]) -> None:
    image = Nifti().read(write(kind))
    np.testing.assert_array_equal(image.voxels, VOXELS)
    np.testing.assert_array_equal(image.affine, LPS)
    assert image.remarks == ()


# --- scl_slope and scl_inter ---


@pytest.mark.parametrize("slope", [0, np.nan, np.inf, -np.inf])
def test_a_slope_of_0_or_nan_is_no_scaling(write: Callable[..., Path], slope: float) -> None:
    voxels = Nifti().read(write(scl_slope=slope, scl_inter=5)).voxels
    np.testing.assert_array_equal(voxels, VOXELS)
    assert voxels.dtype == np.int16


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (2.5, 0), (-1, 7), (1, 0)])
def test_values_are_scaled(write: Callable[..., Path], slope: float, intercept: float) -> None:
    voxels = Nifti().read(write(scl_slope=slope, scl_inter=intercept)).voxels
    np.testing.assert_array_equal(voxels, VOXELS * slope + intercept)


def test_a_slope_without_intercept_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="Valid slope but invalid intercept nan"):
        Nifti().read(write(scl_slope=2, scl_inter=np.nan))


# --- place ---


def test_the_qform_is_used_where_there_is_no_sform(write: Callable[..., Path]) -> None:
    image = Nifti().read(write(**QFORM_CODED))
    np.testing.assert_allclose(image.affine, LPS, atol=1e-6)
    assert image.orientation_known


def test_a_qfac_of_0_means_1(write: Callable[..., Path]) -> None:
    image = Nifti().read(write(pixdim=[0, 1, 2, 3, 1, 1, 1, 1], **QFORM_CODED))
    np.testing.assert_allclose(image.affine, LPS, atol=1e-6)


@pytest.mark.parametrize("affine", [np.diag([1.0, -2.0, 3.0, 1.0]), np.diag([-1.0, -2.0, -3.0, 1.0])])
def test_negative_determinants_are_kept(tmp_path: Path, affine: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(VOXELS.T, affine), tmp_path / "a.nii.gz")
    image = Nifti().read(tmp_path / "a.nii.gz")
    assert np.linalg.det(image.affine) < 0
    np.testing.assert_array_equal(image.affine, affine)


def with_both_forms(path: Path, sform: np.ndarray, qform: np.ndarray) -> Path:
    image = nib.Nifti1Image(VOXELS.T, sform)
    image.set_sform(sform, 2)
    image.set_qform(qform, 1)
    nib.save(image, path)
    return path


def turned(degrees: float) -> np.ndarray:
    return nib.affines.from_matvec(nib.eulerangles.euler2mat(z=np.radians(degrees)) @ LPS[:3, :3], [3, 4, 5])


def test_the_sform_wins_and_a_remark_says_how_far_the_qform_is_away(tmp_path: Path) -> None:
    image = Nifti().read(with_both_forms(tmp_path / "a.nii.gz", turned(20), LPS))
    np.testing.assert_allclose(image.affine, turned(20), atol=1e-6)
    distance = max(np.linalg.norm((turned(20) - LPS) @ [x, y, z, 1]) for x in (0, 3) for y in (0, 2) for z in (0, 1))
    detail = f"sform and qform place voxels up to {distance:.3g} mm apart; the sform is used"
    assert image.remarks == (Check("header", "warning", detail),)


def test_rounding_of_the_qform_is_no_contradiction(tmp_path: Path) -> None:
    """At 45 degrees rounding alone decides which axis is the nearest."""
    for degrees in (0.01, 12.34, 45, 135):
        assert Nifti().read(with_both_forms(tmp_path / "a.nii.gz", turned(degrees), turned(degrees))).remarks == ()


REFUSED = {
    "qform against sform": ({"qform_code": 1, "quatern_d": 0}, "its sform says LPS, its qform RAS; find out which"),
    "voxel size of the sform": (
        {"pixdim": [1, 1, 2, 1.5, 1, 1, 1, 1]},
        "sform says voxels of 1 × 2 × 3 mm, its pixdim",
    ),
    "no voxel size": ({"pixdim": [1, 0, 2, 3, 1, 1, 1, 1]}, "its pixdim says voxels of 0 × 2 × 3 mm; write the true"),
    "no voxel size, qform": ({"pixdim": [1, 1, 2, 0, 1, 1, 1, 1], **QFORM_CODED}, "pixdim says voxels of 1 × 2 × 0 mm"),
    "no voxel size, no form": ({"pixdim": [1, 1, 2, 0, 1, 1, 1, 1], **NO_FORM}, "pixdim says voxels of 1 × 2 × 0 mm"),
    "negative voxel size": ({"pixdim": [1, 1, -2, 3, 1, 1, 1, 1]}, "its pixdim says voxels of 1 × -2 × 3 mm"),
    "NaN as voxel size": ({"pixdim": [1, np.nan, 2, 3, 1, 1, 1, 1], **QFORM_CODED}, "voxels of nan × 2 × 3 mm"),
    "sform of zeros": ({"srow_x": 0, "srow_y": 0, "srow_z": 0}, r"\(sform\): the affine is singular"),
    "sform of NaN": ({"srow_x": np.nan}, r"\(sform\): the affine is not a 4×4 matrix of finite numbers"),
    "sheared sform": ({"srow_x": [-1, 0.5, 0, 0]}, r"\(sform\): the affine is sheared by"),
    "qform that is no rotation": ({"qform_code": 1, "quatern_b": 2}, "cannot be read as NIfTI"),
    "unknown sform code": ({"sform_code": 9}, "its sform_code is 9, which NIfTI does not know"),
    "unknown qform code": ({"qform_code": -1}, "its qform_code is -1, which NIfTI does not know"),
    "metres": ({"xyzt_units": 1 | 8}, "states its geometry in metres; write it in mm"),
    "micrometres": ({"xyzt_units": 3}, "states its geometry in micrometres; write it in mm"),
    "unknown unit": ({"xyzt_units": 7}, r"states its geometry in an unknown unit \(code 7\); write it in mm"),
    "voxels inside of the header": ({"vox_offset": 0}, "its voxels begin at byte 0.0, inside of its header"),
    "voxels nowhere": ({"vox_offset": np.nan}, "its voxels begin at byte nan"),
    "voxels after the end": ({"vox_offset": 4e9}, "it has 0 of 48 bytes of voxels"),
    "voxels in another file": ({"magic": b"ni1"}, r"its magic is b'ni1', not b'n\+1'"),
    "no dimensions": ({"dim": [0, 4, 3, 2, 1, 1, 1, 1]}, "it has 0 dimensions"),
    "eight dimensions": ({"dim": [8, 4, 3, 2, 1, 1, 1, 1]}, "cannot be read as NIfTI"),
    "negative size": ({"dim": [3, 4, -3, 2, 1, 1, 1, 1]}, r"its sizes are \(4, -3, 2\)"),
    "size of zero": ({"dim": [3, 4, 3, 0, 1, 1, 1, 1]}, r"its sizes are \(4, 3, 0\)"),
    "size that is too small": ({"dim": [3, 4, 3, 1, 1, 1, 1, 1]}, "it goes on after the 24 bytes of voxels"),
    "size that is too large": ({"dim": [3, 4, 3, 3, 1, 1, 1, 1]}, "it has 48 of 72 bytes of voxels"),
    "size that no memory holds": ({"dim": [3, *[32767] * 3, 1, 1, 1, 1]}, "cannot be read as NIfTI"),
    "unknown voxel type": ({"datatype": 3}, "holds <unknown code 3> voxels; one real number per voxel"),
    "bits as voxels": ({"datatype": 1}, "holds binary voxels; one real number per voxel"),
    "colours": ({"datatype": 2304}, "holds RGBA voxels; one real number per voxel"),
    "complex numbers": ({"datatype": 32}, "holds complex64 voxels; one real number per voxel"),
}


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("what", REFUSED)
def test_refused(write: Callable[..., Path], what: str, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    fields, problem = REFUSED[what]
    with pytest.raises(InputError, match=f"{name}.*{problem}") as refusal:
        Nifti().read(write(name=name, **fields))
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("unit", [0, 2, 2 | 8, 16])
def test_millimetres_or_no_unit_are_accepted(write: Callable[..., Path], unit: int) -> None:
    assert Nifti().read(write(xyzt_units=unit)).grid.spacing_xyz_mm == pytest.approx((1, 2, 3))


def test_a_pixdim_that_is_rounded_is_no_contradiction(write: Callable[..., Path]) -> None:
    assert Nifti().read(write(pixdim=[1, 1.005, 2, 3, 1, 1, 1, 1])).grid.spacing_xyz_mm == (1, 2, 3)


# --- gzip, and how much there is ---


def test_a_gzip_file_may_have_several_members(tmp_path: Path) -> None:
    """As parallel compressors write them."""
    nib.save(nib.Nifti1Image(VOXELS.T, LPS), tmp_path / "a.nii")
    content = (tmp_path / "a.nii").read_bytes()
    parts = [content[:100], content[100:360], content[360:]]
    (tmp_path / "b.nii.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    np.testing.assert_array_equal(Nifti().read(tmp_path / "b.nii.gz").voxels, VOXELS)


@pytest.mark.parametrize("after", [b"garbage", gzip.compress(b"garbage")], ids=["no gzip", "another member"])
def test_what_follows_a_gzip_file_is_refused(write: Callable[..., Path], after: bytes) -> None:
    path = write(name="a.nii.gz")
    path.write_bytes(path.read_bytes() + after)
    with pytest.raises(InputError, match="cannot be read as NIfTI; it is damaged"):
        Nifti().read(path)


def test_what_follows_the_voxels_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="it goes on after the 48 bytes of voxels that its header announces"):
        Nifti().read(write(after=b"\0"))


def test_a_header_extension_is_skipped(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS.T, LPS)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"from a scanner" * 20))
    nib.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(Nifti().read(tmp_path / "a.nii.gz").voxels, VOXELS)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_header_that_claims_gigabytes_takes_no_memory(write: Callable[..., Path], name: str) -> None:
    """A process that may hold little stands for a machine that has little."""
    path = write(name=name, dim=[3, 4000, 4000, 2000, 1, 1, 1, 1])  # 64 GB
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from innereye_core.errors import InputError\n"
        "from innereye_imaging.nifti import Nifti\n"
        "import nibabel.volumeutils\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    Nifti().read(Path(sys.argv[1]))\n"
        "except InputError:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 100e6


def test_oblique_images_are_written_as_they_were_read(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(VOXELS.T, turned(33)), tmp_path / "a.nii.gz")
    image = Nifti().read(tmp_path / "a.nii.gz")
    Nifti().write(tmp_path / "b.nii.gz", Image(image.voxels, image.affine))
    written = nib.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(written.get_sform(), nib.load(tmp_path / "a.nii.gz").affine)
    np.testing.assert_allclose(written.get_qform(), written.get_sform(), atol=1e-5)
