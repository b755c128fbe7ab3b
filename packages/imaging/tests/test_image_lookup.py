"""How an image file finds its format, and what every format's images must be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from innereye_core.contract.providers import ImageFormat
from innereye_core.errors import InputError
from innereye_imaging.formats import format_for, read_image
from innereye_imaging.itk_formats import MetaImage, Nrrd
from innereye_imaging.nifti import Nifti

FORMATS = [Nifti(), Nrrd(), MetaImage()]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.nii", "nifti"), ("a.nii.gz", "nifti"), ("A.NRRD", "nrrd"), ("a.b.mha", "metaimage"), ("a.mhd", "metaimage")],
)
def test_the_ending_decides_the_format(name: str, expected: str) -> None:
    found = format_for(Path(name), FORMATS)
    assert found is not None
    assert found.name == expected


def test_formats_offer_what_the_contract_asks_for() -> None:
    assert all(isinstance(known, ImageFormat) for known in FORMATS)


@dataclass
class OtherPackagesImage:
    voxels: Any
    affine: Any


@dataclass
class OtherPackagesFormat:
    """A format of another plugin: a more specific ending, an image type of its own."""

    image: OtherPackagesImage
    name: str = "other"
    suffixes: tuple[str, ...] = (".other.nii.gz",)

    def read(self, path: Path) -> OtherPackagesImage:
        return self.image

    def write(self, path: Path, image: object) -> None:
        raise NotImplementedError


def test_the_longest_ending_wins_and_any_image_type_will_do(tmp_path: Path) -> None:
    other = OtherPackagesFormat(OtherPackagesImage([[[1, 2]]], np.eye(4).tolist()))
    (tmp_path / "a.other.nii.gz").touch()
    image = read_image(tmp_path / "a.other.nii.gz", [*FORMATS, other])
    assert image.voxels.shape == (1, 1, 2)
    assert image.grid.axis_codes == "RAS"


@pytest.mark.parametrize(
    ("voxels", "affine", "problem"),
    [
        (np.zeros((2, 2)), np.eye(4), "3-D image is needed"),
        (np.zeros((2, 0, 2)), np.eye(4), "3-D image is needed"),
        (np.zeros((2, 2, 2), np.complex64), np.eye(4), "one real number per voxel"),
        (np.zeros((2, 2, 2)), np.zeros((4, 4)), "singular"),
    ],
)
def test_images_of_other_formats_are_checked(
    tmp_path: Path, voxels: np.ndarray, affine: np.ndarray, problem: str
) -> None:
    (tmp_path / "a.other.nii.gz").touch()
    with pytest.raises(InputError, match=problem):
        read_image(tmp_path / "a.other.nii.gz", [OtherPackagesFormat(OtherPackagesImage(voxels, affine))])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Image file .*scan\.nii\.gz does not exist"):
        read_image(tmp_path / "scan.nii.gz", FORMATS)


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path, FORMATS)


def test_an_unknown_ending_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "scan.jpg").touch()
    with pytest.raises(
        InputError, match=r"no installed image format has this ending; known are \.nii\.gz, \.nii, \.nrrd"
    ):
        read_image(tmp_path / "scan.jpg", FORMATS)


def test_a_sheared_image_is_refused(write_nifti: Callable[..., Path]) -> None:
    sheared = np.array([[1, 0, 0, 0], [0, 1, 0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    with pytest.raises(InputError, match="sheared"):
        read_image(write_nifti(np.zeros((2, 2, 2), np.uint8), sheared), FORMATS)


@pytest.mark.skipif(os.geteuid() != 0, reason="dropping privileges needs root")
def test_a_file_in_a_locked_folder_is_bad_input(write_nifti: Callable[..., Path]) -> None:
    """pytest's folders are locked for others."""
    path = write_nifti(np.zeros((2, 2, 2), np.uint8))
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from innereye_core.errors import InputError\n"
        "from innereye_imaging.formats import read_image\n"
        "os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
        "try:\n"
        "    read_image(Path(sys.argv[1]), [])\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    completed = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert "cannot be read: Permission denied" in completed.stdout
