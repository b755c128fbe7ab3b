"""The five intensity normalisations, against the original's outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from innereye_core.config import CTWindow, MRIWindow, NoNormalization, SimpleNorm, TrimmedNorm
from innereye_core.errors import InputError
from innereye_imaging.normalization import fit_intensity_map


def settings_of(params: dict[str, Any]) -> CTWindow | MRIWindow | TrimmedNorm:
    """The config of a case, from InnerEye's names."""
    output_range = tuple(params["output_range"])
    match params["norm_method"]:
        case "CT Window":
            return CTWindow("ct_window", params["level"], params["window"], output_range)
        case "MRI Window":
            return MRIWindow("mri_window", params["sharpen"], tuple(params["tail"]), output_range)
        case _:
            return TrimmedNorm("trimmed_norm", params["sharpen"], tuple(params["trim_percentiles"]), output_range)


@pytest.mark.parametrize("case", ["ct_0", "ct_1", "mri_default", "trim_default", "trim_25_75"])
def test_normalised_values_are_those_of_the_original(golden: Path, case: str) -> None:
    described = json.loads((golden / "photonorm" / "photonorm.json").read_text())[case]
    arrays = np.load(golden / "photonorm" / "photonorm.npz")
    image = arrays[described["input"]]
    found = fit_intensity_map(settings_of(described["params"]), image, 0, "image").apply(image)
    np.testing.assert_allclose(found, arrays[case], rtol=1e-6)


@pytest.mark.parametrize("case", ["ct_0", "mri_default", "trim_25_75"])
def test_a_patch_is_normalised_as_in_the_whole_image(golden: Path, case: str) -> None:
    described = json.loads((golden / "photonorm" / "photonorm.json").read_text())[case]
    arrays = np.load(golden / "photonorm" / "photonorm.npz")
    image = arrays[described["input"]]
    found = fit_intensity_map(settings_of(described["params"]), image, 0, "image").apply(image[2:5, 3:9, 1:4])
    np.testing.assert_allclose(found, arrays[case][2:5, 3:9, 1:4], rtol=1e-6)


def test_the_stored_image_is_not_changed() -> None:
    image = np.random.default_rng(0).integers(0, 900, (5, 6, 7)).astype(np.int16)
    before = image.copy()
    fit_intensity_map(MRIWindow("mri_window"), image, 0, "image").apply(image)
    np.testing.assert_array_equal(image, before)


def test_integers_and_floats_of_the_same_values_are_normalised_alike() -> None:
    image = np.random.default_rng(0).gamma(2, 200, (8, 9, 10)).astype(np.int16)
    for settings in (MRIWindow("mri_window"), TrimmedNorm("trimmed_norm"), SimpleNorm("simple_norm")):
        maps = [fit_intensity_map(settings, image.astype(dtype), 0, "image") for dtype in ("i2", "f4", "f8")]
        assert maps[0] == maps[1] == maps[2]


def test_mri_window_takes_what_is_below_otsus_threshold_as_0() -> None:
    """So did the original; it shows where the threshold is negative."""
    image = np.concatenate([np.linspace(-3000, -2900, 500), np.linspace(-1000, -500, 500)]).reshape(10, 10, 10)
    found = fit_intensity_map(MRIWindow("mri_window"), image, 0, "image").apply(image)
    np.testing.assert_array_equal(found[:5], 1)


def test_simple_norm_gives_mean_0_and_deviation_1() -> None:
    image = np.random.default_rng(0).normal(300, 40, (5, 6, 7))
    found = fit_intensity_map(SimpleNorm("simple_norm"), image, 0, "image").apply(image)
    np.testing.assert_allclose(found, (image - image.mean()) / image.std(), atol=1e-12)


def test_no_normalisation_leaves_values_alone() -> None:
    image = np.array([[[-1000, 40, 3000]]], np.int16)
    np.testing.assert_array_equal(fit_intensity_map(NoNormalization(), image, 0, "image").apply(image), image)


def test_every_channel_has_its_own_tail() -> None:
    image = np.random.default_rng(0).gamma(2, 200, (8, 9, 10))
    settings = MRIWindow("mri_window", tail=(1.0, 0.25))
    first, second = (fit_intensity_map(settings, image, channel, "image") for channel in (0, 1))
    assert second.scale > first.scale  # a shorter tail is a narrower window


@pytest.mark.parametrize("settings", [MRIWindow("mri_window"), TrimmedNorm("trimmed_norm")])
def test_an_image_of_two_values_has_no_window(settings: MRIWindow | TrimmedNorm) -> None:
    image = np.zeros((4, 4, 4))
    image[0] = 7
    with pytest.raises(InputError, match=f"^scan.nii: normalization {settings.method} finds no range of values"):
        fit_intensity_map(settings, image, 0, "scan.nii")


@pytest.mark.parametrize("settings", [MRIWindow("mri_window"), TrimmedNorm("trimmed_norm"), SimpleNorm("simple_norm")])
def test_a_constant_image_has_no_window(settings: Any) -> None:
    with pytest.raises(InputError, match="nearly constant"):
        fit_intensity_map(settings, np.full((4, 4, 4), 7), 0, "scan.nii")
