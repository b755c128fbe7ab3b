"""An image stored in any of the 48 orders and directions of its axes gets the same labels, voxel for voxel.

Files go in and files come out; nibabel alone turns them there and back.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations

from innereye_core.config import (
    CTWindow,
    LargestComponent,
    ModelConfig,
    MRIWindow,
    PostprocessingConfig,
    SimpleNorm,
    SliceExclusionRule,
    TrimmedNorm,
)
from innereye_core.model import ModelFiles, ScoreRequest
from innereye_core.progress import Silent
from innereye_imaging.scorer import ImageScorer

ALL_ORIENTATIONS = [
    "".join(codes) for axes in permutations((("L", "R"), ("P", "A"), ("I", "S"))) for codes in product(*axes)
]

CROP = (8, 10, 12)

WINDOW = CTWindow("ct_window", level=40, window=1200)


def scores(patches: np.ndarray) -> np.ndarray:
    """Four classes, from differences to neighbours that tell every axis and direction from the others."""
    image = patches[:, 0].astype(np.float64)
    ahead_z, ahead_y, ahead_x = (np.roll(image, -shift, axis) for axis, shift in ((1, 1), (2, 2), (3, 3)))
    ramp = np.linspace(-0.2, 0.2, image.shape[1])[:, None, None]
    return np.stack([0.2 - image, 0.7 * image + ahead_z - ahead_y, ramp + ahead_x - image, ahead_y * ahead_x], axis=1)


@pytest.fixture
def score(
    tmp_path: Path, make_config: Callable[..., ModelConfig], installed: Any, numpy_runtime: Any, numpy_network: Any
) -> Callable[..., nib.Nifti1Image]:
    """Write an image, score it, and read the segmentation."""
    installed.available_runtimes.append(numpy_runtime([numpy_network(scores, CROP, multiple_zyx=(2, 2, 2))]))

    def run(
        image: nib.Nifti1Image,
        mask: nib.Nifti1Image | None = None,
        normalization: Any = WINDOW,
        **settings: Any,
    ) -> nib.Nifti1Image:
        config = make_config(
            CROP,
            structures=("one", "two", "three"),
            activation="softmax",
            normalization=normalization,
            postprocessing=PostprocessingConfig(
                largest_component=(LargestComponent("one", 0.1),),
                slice_exclusion_rules=(SliceExclusionRule("three", "two", higher_dominates=True),),
            ),
            **settings,
        )
        nib.save(image, tmp_path / "image.nii.gz")
        paths = {}
        if mask is not None:
            nib.save(mask, tmp_path / "mask.nii.gz")
            paths["mask"] = tmp_path / "mask.nii.gz"
        output = tmp_path / "segmentation.nii.gz"
        model = ModelFiles(config, (Path("1.pth.tar"),))
        request = ScoreRequest(model, "Test:1", (tmp_path / "image.nii.gz",), output, overwrite=True, **paths)
        ImageScorer().score(request, installed, Silent())
        return nib.load(output)

    return run


def turn(image: nib.Nifti1Image, codes: str) -> nib.Nifti1Image:
    current = orientations.io_orientation(image.affine)
    return image.as_reoriented(orientations.ornt_transform(current, orientations.axcodes2ornt(codes)))


def labels_of(image: nib.Nifti1Image) -> np.ndarray:
    return np.asanyarray(image.dataobj)


def assert_the_same_in_all_orientations(
    score: Callable[..., nib.Nifti1Image], image: nib.Nifti1Image, mask: nib.Nifti1Image | None = None, **settings: Any
) -> None:
    stored_as = "".join(nib.aff2axcodes(image.affine))
    expected = labels_of(score(image, mask, **settings))
    assert len(np.unique(expected)) >= 3, "or there is little to compare"
    for codes in ALL_ORIENTATIONS:
        turned = turn(image, codes)
        found = score(turned, None if mask is None else turn(mask, codes), **settings)
        assert "".join(nib.aff2axcodes(found.affine)) == codes
        np.testing.assert_array_equal(found.affine, turned.affine.astype(np.float32))
        np.testing.assert_array_equal(labels_of(turn(found, stored_as)), expected, err_msg=codes)


def test_a_real_ct(score: Callable[..., nib.Nifti1Image], real_data: Path) -> None:
    ct = nib.load(real_data / "totalsegmentator" / "example_ct.nii.gz").slicer[30:60, 40:65, 50:71]
    expected = {"modality": "ct", "spacing_xyz_mm": (3.0, 3.0, 3.0), "orientation": "LPS"}
    assert_the_same_in_all_orientations(score, ct, input=expected, stride_zyx=(4, 6, 8))


@pytest.fixture
def phantom() -> nib.Nifti1Image:
    """Smooth noise of a CT's values, oblique, with voxels of three sizes."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(3).normal(size=(23, 17, 13)), 1.2)
    voxels = (noise / noise.std() * 400).astype(np.int16)
    rotation = nib.eulerangles.euler2mat(0.2, -0.1, 0.15)
    return nib.Nifti1Image(voxels, nib.affines.from_matvec(rotation @ np.diag([-0.9, -1.1, 2.0]), [3, -50, 70]))


@pytest.mark.parametrize(
    ("stitching", "normalization"),
    [
        ("average", SimpleNorm("simple_norm")),
        ("crop", TrimmedNorm("trimmed_norm", sharpen=1.9)),
        ("gaussian", MRIWindow("mri_window", sharpen=1.9)),
    ],
)
def test_an_oblique_phantom(
    score: Callable[..., nib.Nifti1Image], phantom: nib.Nifti1Image, stitching: str, normalization: Any
) -> None:
    settings = {"input": {"modality": "ct", "orientation": "PIR"}, "stride_zyx": (4, 6, 8)}
    assert_the_same_in_all_orientations(score, phantom, stitching=stitching, normalization=normalization, **settings)


@pytest.mark.parametrize("spacing", [(1.2, 0.8, 1.5), (1.8, 0.55, 1.0)], ids=["any", "doubled and halved"])
def test_a_phantom_that_is_resampled_and_masked(
    score: Callable[..., nib.Nifti1Image], phantom: nib.Nifti1Image, spacing: tuple[float, float, float]
) -> None:
    """Resampled along the network's axes, whatever those of the file are, also halfway between two voxels."""
    inside = np.zeros(phantom.shape, np.uint8)
    inside[3:20, 2:15, 1:12] = 1
    mask = nib.Nifti1Image(inside, phantom.affine)
    expected = {"spacing_xyz_mm": spacing, "on_mismatch": "resample", "orientation": "RAS"}
    assert_the_same_in_all_orientations(score, phantom, mask, input=expected)
