"""Dice and volumes of structures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from innereye_core.errors import InputError
from innereye_core.model import StructureVolume
from innereye_imaging.metrics import dice_per_structure
from innereye_imaging.statistics import structure_volumes

LABELS = np.array([[[1, 1, 1, 2, 0, 0]]], np.uint8)


def mask(*voxels: int) -> np.ndarray:
    found = np.zeros(LABELS.shape, bool)
    found[..., list(voxels)] = True
    return found


def test_dice_is_twice_the_overlap_over_both_sizes() -> None:
    scores = dice_per_structure(LABELS, {"a": mask(1, 2, 3), "b": mask(3)}, ["a", "b"])
    assert scores == {"a": pytest.approx(2 * 2 / 6), "b": 1.0}


def test_a_structure_that_is_in_one_only_has_dice_0() -> None:
    scores = dice_per_structure(LABELS, {"a": mask(), "b": mask(5)}, ["a", "b"])
    assert scores == {"a": 0, "b": 0}


def test_a_structure_that_is_in_neither_has_no_dice() -> None:
    scores = dice_per_structure(LABELS, {"a": mask(0), "b": mask(3), "c": mask()}, ["a", "b", "c"])
    assert math.isnan(scores["c"])


def test_overlapping_masks_are_compared_one_by_one() -> None:
    scores = dice_per_structure(LABELS, {"a": mask(0, 1, 2, 3), "b": mask(3)}, ["a", "b"])
    assert scores["b"] == 1


def test_a_missing_mask_is_refused() -> None:
    with pytest.raises(InputError, match="Structure 'b' has no mask to compare with; masks are there for a"):
        dice_per_structure(LABELS, {"a": mask(0)}, ["a", "b"])


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"Mask of 'a' has shape \(2, 2, 2\), the segmentation \(1, 1, 6\)"):
        dice_per_structure(LABELS, {"a": np.zeros((2, 2, 2), bool)}, ["a"])


def test_volumes_count_voxels_and_give_millilitres() -> None:
    assert structure_volumes(LABELS, 500.0, ["a", "b", "c"]) == {
        "a": StructureVolume(1, 3, 1.5),
        "b": StructureVolume(2, 1, 0.5),
        "c": StructureVolume(3, 0, 0.0),
    }
