"""Post-processing against the original's outputs, and its rules one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage

from innereye_core.config import LargestComponent, SliceExclusionRule, SummedProbabilityRule
from innereye_imaging.postprocessing import (
    exclude_slices,
    keep_largest_components,
    most_probable_class,
    smooth_posteriors,
)

NUMBERS = {"liver": 1, "spleen": 2, "kidney": 3}
SUMMED = (SummedProbabilityRule("liver", "spleen", "kidney"),)


@pytest.fixture
def arrays(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "postproc" / "postproc.npz"))


@pytest.mark.parametrize(
    ("before", "threshold", "after"),
    [
        ("segmentation", None, "lcc_class1"),
        ("segmentation", 0.1, "lcc_class1_thr"),
        ("lcc_tie_in", None, "lcc_tie_out"),
        ("lcc_tie_in", 0.2, "lcc_tie_thr_out"),
        ("lcc_diag_in", None, "lcc_diag_out"),
    ],
)
def test_largest_components_are_those_of_the_original(
    arrays: dict[str, np.ndarray], before: str, threshold: float | None, after: str
) -> None:
    labels = arrays[before].copy()
    keep_largest_components(labels, (LargestComponent("liver", threshold),), NUMBERS)
    np.testing.assert_array_equal(labels, arrays[after])


def test_summed_probability_rules_are_those_of_the_original(arrays: dict[str, np.ndarray]) -> None:
    labels = most_probable_class(arrays["posteriors"], SUMMED, NUMBERS)
    np.testing.assert_array_equal(labels, arrays["summed_one"])
    assert labels.dtype == np.uint8


def test_slice_exclusion_is_that_of_the_original(arrays: dict[str, np.ndarray]) -> None:
    labels = arrays["slice_in"].copy()
    exclude_slices(labels, (SliceExclusionRule("spleen", "liver", higher_dominates=True),), NUMBERS)
    np.testing.assert_array_equal(labels, arrays["slice_higher_dom"])


def test_smoothing_is_that_of_the_original(arrays: dict[str, np.ndarray]) -> None:
    found = smooth_posteriors(arrays["posteriors"].copy(), (2, 2, 2), (1, 1, 1))
    np.testing.assert_allclose(found, arrays["smooth_iso"], atol=1e-6)
    assert found.dtype == np.float32


def test_smoothing_takes_millimetres() -> None:
    posteriors = np.random.default_rng(0).random((2, 9, 9, 9)).astype(np.float32)
    found = smooth_posteriors(posteriors.copy(), (3, 2, 1), (3, 1, 0.5))
    np.testing.assert_allclose(found[1], scipy.ndimage.gaussian_filter(posteriors[1], (1, 2, 2)), atol=1e-6)


def test_the_most_probable_class_is_the_lowest_at_a_tie(arrays: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(
        most_probable_class(np.full((4, 2, 2, 2), 0.25, np.float32), (), {}), arrays["argmax_tie"]
    )
    random = np.random.default_rng(0).integers(0, 3, (5, 6, 7, 8)).astype(np.float32)
    np.testing.assert_array_equal(most_probable_class(random, (), {}), random.argmax(axis=0))


@pytest.mark.parametrize(
    ("posteriors", "label"),
    [
        ((0.0, 0.25, 0.3, 0.45), 2),
        ((0.0, 0.3, 0.25, 0.45), 1),
        ((0.0, 0.275, 0.275, 0.45), 1),  # first and second alike
        ((0.1, 0.2, 0.2, 0.5), 3),  # together less than the external class
        ((0.0, 0.25, 0.25, 0.5), 3),  # together as much as it
        ((0.4, 0.2, 0.2, 0.2), 0),  # not labelled with it
    ],
)
def test_two_classes_that_together_outweigh_a_third_take_its_voxels(posteriors: tuple[float, ...], label: int) -> None:
    block = np.array(posteriors, np.float32).reshape(4, 1, 1, 1)
    assert most_probable_class(block, SUMMED, NUMBERS).item() == label


def two_parts(first: int, second: int) -> np.ndarray:
    """A structure of two separate runs of voxels."""
    labels = np.zeros((1, 3, max(first, second)), np.uint8)
    labels[0, 0, :first] = labels[0, 2, :second] = 1
    return labels


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [
        (None, [0, 6]),
        (0.3, [4, 6]),
        (0.4, [4, 6]),  # exactly the fraction stays
        (0.45, [0, 6]),
        (0.5, [0, 6]),
        (0.9, [0, 6]),  # none is as large: the largest stays
    ],
)
def test_thresholds_keep_components_of_at_least_that_fraction(threshold: float | None, kept: list[int]) -> None:
    labels = two_parts(4, 6)
    keep_largest_components(labels, (LargestComponent("liver", threshold),), NUMBERS)
    assert [np.count_nonzero(labels[0, 0]), np.count_nonzero(labels[0, 2])] == kept


def test_if_no_component_reaches_the_threshold_the_largest_stays() -> None:
    labels = np.zeros((1, 1, 9), np.uint8)
    labels[0, 0, [0, 2, 4, 6, 7]] = 1
    keep_largest_components(labels, (LargestComponent("liver", 0.45),), NUMBERS)
    assert np.flatnonzero(labels).tolist() == [6, 7]


def test_structures_without_a_rule_are_left_alone_and_missing_ones_do_no_harm() -> None:
    labels = two_parts(4, 6)
    labels[labels == 1] = 2
    before = labels.copy()
    keep_largest_components(labels, (LargestComponent("liver"), LargestComponent("kidney")), NUMBERS)
    np.testing.assert_array_equal(labels, before)


def test_touching_structures_are_separate_components() -> None:
    labels = np.array([[[1, 1, 2, 1, 2, 2, 2]]], np.uint8)
    keep_largest_components(labels, (LargestComponent("liver"), LargestComponent("spleen")), NUMBERS)
    assert labels.ravel().tolist() == [1, 1, 0, 0, 2, 2, 2]


def test_one_pass_over_all_structures_equals_one_pass_each() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (12, 13, 14)).astype(np.uint8)
    rules = tuple(LargestComponent(name, threshold) for name, threshold in zip(NUMBERS, (None, 0.02, 0.7), strict=True))
    expected = labels.copy()
    for number, rule in enumerate(rules, start=1):
        components, count = scipy.ndimage.label(labels == number)
        sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
        large = [i + 1 for i, size in enumerate(sizes) if rule.threshold == 0.02 and size >= 0.02 * sizes.sum()]
        keep = large or [int(np.argmax(sizes)) + 1]
        expected[(labels == number) & ~np.isin(components, keep)] = 0
    keep_largest_components(labels, rules, NUMBERS)
    np.testing.assert_array_equal(labels, expected)


def column(*slices: tuple[int, ...]) -> np.ndarray:
    """Labels with the given structures in slices 0, 1, …"""
    labels = np.zeros((len(slices), 1, 3), np.uint8)
    for z, present in enumerate(slices):
        labels[z, 0, : len(present)] = present
    return labels


@pytest.mark.parametrize(
    ("higher_dominates", "expected"),
    [(True, column((1,), (2, 2), (2, 2), (2,))), (False, column((1,), (1, 1), (1, 1), (2,)))],
)
def test_of_two_structures_in_the_same_slices_one_dominates(higher_dominates: bool, expected: np.ndarray) -> None:
    labels = column((1,), (1, 2), (2, 1), (2,))
    exclude_slices(labels, (SliceExclusionRule("spleen", "liver", higher_dominates),), NUMBERS)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("labels", [column((1,), (1,), (2,)), column((1,), (1,)), column((2,), ())])
def test_structures_that_share_no_slice_stay(labels: np.ndarray) -> None:
    before = labels.copy()
    exclude_slices(labels, (SliceExclusionRule("spleen", "liver", higher_dominates=True),), NUMBERS)
    np.testing.assert_array_equal(labels, before)
