"""Reading and writing NRRD and MetaImage files."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from innereye_core.errors import InputError, StorageError, UsageError
from innereye_imaging.geometry import Image
from innereye_imaging.itk_formats import MetaImage, Nrrd

VOXELS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
FORMATS = [pytest.param(Nrrd(), "a.nrrd", id="nrrd"), pytest.param(MetaImage(), "a.mha", id="mha")]
RAS = np.array([[-0.5, 0, 0, 10], [0, 2, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1.0]])


def save(path: Path, voxels: np.ndarray = VOXELS, compressed: bool = True, vectors: bool = False) -> Path:
    """Write with SimpleITK alone, which works in LPS."""
    image = SimpleITK.GetImageFromArray(voxels, isVector=vectors)
    if image.GetDimension() == 3:
        image.SetSpacing((0.5, 2, 3))
        image.SetOrigin((-10, 20, 30))
        image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(path), useCompression=compressed)
    return path


@pytest.mark.parametrize(("known", "name"), [*FORMATS, (Nrrd(), "a.nhdr"), (MetaImage(), "a.mhd")])
def test_voxels_and_place_are_read(tmp_path: Path, known: Nrrd | MetaImage, name: str) -> None:
    image = known.read(save(tmp_path / name))
    np.testing.assert_array_equal(image.voxels, VOXELS)
    assert image.voxels.dtype == np.int16
    np.testing.assert_allclose(image.affine, RAS)
    assert image.orientation_known


@pytest.mark.parametrize(("known", "name"), FORMATS)
def test_what_is_written_is_what_is_read(tmp_path: Path, known: Nrrd | MetaImage, name: str) -> None:
    labels = VOXELS.astype(np.uint8)
    known.write(tmp_path / name, Image(labels.transpose(2, 1, 0), RAS))
    image = known.read(tmp_path / name)
    np.testing.assert_array_equal(image.voxels, labels.transpose(2, 1, 0))
    assert image.voxels.dtype == np.uint8
    np.testing.assert_allclose(image.affine, RAS)


@pytest.mark.parametrize(("known", "name"), FORMATS)
def test_equal_images_are_equal_bytes(tmp_path: Path, known: Nrrd | MetaImage, name: str) -> None:
    known.write(tmp_path / name, Image(VOXELS, RAS))
    known.write(tmp_path / f"b{name}", Image(VOXELS, RAS))
    assert (tmp_path / name).read_bytes() == (tmp_path / f"b{name}").read_bytes()


@pytest.mark.parametrize(("known", "name"), FORMATS)
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("missing", [30, 330])
def test_truncated_files_are_refused_silently(
    tmp_path: Path,
    known: Nrrd | MetaImage,
    name: str,
    compressed: bool,
    missing: int,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = save(tmp_path / name, compressed=compressed)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(InputError, match=name) as refusal:
        known.read(path)
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("known", "name"), FORMATS)
def test_other_content_is_refused(tmp_path: Path, known: Nrrd | MetaImage, name: str) -> None:
    (tmp_path / name).write_bytes(b"this is no image\n" * 100)
    with pytest.raises(InputError, match=f"cannot be read as {known.name}"):
        known.read(tmp_path / name)


@pytest.mark.parametrize(("known", "name"), FORMATS)
def test_images_of_two_dimensions_are_refused(tmp_path: Path, known: Nrrd | MetaImage, name: str) -> None:
    with pytest.raises(InputError, match="is 2-D"):
        known.read(save(tmp_path / name, VOXELS[0]))


@pytest.mark.parametrize(("known", "name"), FORMATS)
def test_a_single_time_point_is_dropped_and_several_are_refused(
    tmp_path: Path, known: Nrrd | MetaImage, name: str
) -> None:
    np.testing.assert_array_equal(known.read(save(tmp_path / name, VOXELS[None])).voxels, VOXELS)
    with pytest.raises(InputError, match="is 4-D"):
        known.read(save(tmp_path / name, np.stack([VOXELS, VOXELS])))


@pytest.mark.parametrize(("known", "name"), FORMATS)
def test_colours_are_refused(tmp_path: Path, known: Nrrd | MetaImage, name: str) -> None:
    with pytest.raises(InputError, match="has 3 values per voxel"):
        known.read(save(tmp_path / name, np.zeros((4, 5, 6, 3), np.uint8), vectors=True))


def test_an_nrrd_without_space_says_that_its_orientation_is_unknown(tmp_path: Path) -> None:
    header = b"NRRD0004\ntype: int16\ndimension: 3\nsizes: 6 5 4\nspacings: 1 2 3\nencoding: raw\nendian: little\n\n"
    (tmp_path / "a.nrrd").write_bytes(header + VOXELS.tobytes())
    image = Nrrd().read(tmp_path / "a.nrrd")
    assert not image.orientation_known
    assert image.grid.spacing_xyz_mm == pytest.approx((1, 2, 3))


def test_a_metaimage_without_matrix_says_that_its_orientation_is_unknown(tmp_path: Path) -> None:
    header = b"NDims = 3\nDimSize = 6 5 4\nElementSpacing = 1 2 3\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    (tmp_path / "a.mha").write_bytes(b"ObjectType = Image\n" + header + VOXELS.tobytes())
    image = MetaImage().read(tmp_path / "a.mha")
    np.testing.assert_array_equal(image.voxels, VOXELS)
    assert not image.orientation_known


@pytest.mark.parametrize(("known", "name"), [(Nrrd(), "a.nhdr"), (MetaImage(), "a.mhd")])
def test_detached_headers_are_not_written(tmp_path: Path, known: Nrrd | MetaImage, name: str) -> None:
    with pytest.raises(UsageError, match="would be two files"):
        known.write(tmp_path / name, Image(VOXELS, RAS))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("known", "name"), FORMATS)
def test_posteriors_are_not_written(tmp_path: Path, known: Nrrd | MetaImage, name: str) -> None:
    with pytest.raises(UsageError, match="need NIfTI"):
        known.write(tmp_path / name, Image(VOXELS[None], RAS))


@pytest.mark.parametrize(("known", "name"), FORMATS)
def test_types_that_the_library_does_not_know_are_a_usage_error(
    tmp_path: Path, known: Nrrd | MetaImage, name: str
) -> None:
    with pytest.raises(UsageError, match=f"{known.name} cannot hold voxels of type float16"):
        known.write(tmp_path / name, Image(VOXELS.astype(np.float16), RAS))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limit", [200, 17_000])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_a_disk_that_fills_up_is_noticed(tmp_path: Path, name: str, limit: int) -> None:
    """A process that may write only small files stands for the full disk."""
    program = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from innereye_core.errors import StorageError\n"
        "from innereye_imaging.geometry import Image\n"
        "from innereye_imaging.itk_formats import MetaImage, Nrrd\n"
        "voxels = np.random.default_rng(0).integers(0, 255, (20, 30, 30)).astype(np.uint8)\n"
        "try:\n"
        "    known = Nrrd() if sys.argv[1].endswith('nrrd') else MetaImage()\n"
        "    known.write(Path(sys.argv[1]), Image(voxels, np.eye(4)))\n"
        "except StorageError:\n"
        "    sys.exit(7)\n"
    )
    completed = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / name)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        check=False,
        timeout=60,
    )
    assert completed.returncode == StorageError.exit_code
