"""Structures that are far from what validation saw are named, and only those."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from innereye_core.errors import IntegrityError
from innereye_core.model import Check
from innereye_imaging.review import (
    FAR_FACTOR,
    RANGES_FILE,
    Extent,
    ValidationRanges,
    ValidationSubject,
    extent_of_mask,
    read_validation_ranges,
    review,
    validation_ranges_bytes,
)
from innereye_imaging.statistics import structure_volumes

ML = 1000.0
"""So many mm³ per voxel: a voxel is a millilitre."""


def seen(*extents: tuple[float, int]) -> ValidationRanges:
    """A validation set with one structure, as volumes and components."""
    return ValidationRanges(
        tuple(
            ValidationSubject(str(number), None, {"organ": Extent(volume, components)})
            for number, (volume, components) in enumerate(extents)
        )
    )


def lines(voxels: int, ranges: ValidationRanges | None, pieces: int = 1) -> tuple[str, ...]:
    """What is to be reviewed where so many voxels were found, in a row or with gaps."""
    return outcome(voxels, ranges, pieces)[1]


def outcome(voxels: int, ranges: ValidationRanges | None, pieces: int = 1) -> tuple[Check, tuple[str, ...]]:
    labels = np.zeros((1, 1, 100), np.uint8)
    labels[..., : voxels - (pieces - 1)] = 1 if voxels else 0
    for piece in range(1, pieces):
        labels[..., 100 - 2 * piece] = 1
    return review(labels, structure_volumes(labels, ML, ["organ"]), ranges)


@pytest.mark.parametrize("voxels", [10, 15, 20, 40, 60, 80])
def test_what_is_within_a_factor_of_what_was_seen_is_not_named(voxels: int) -> None:
    assert FAR_FACTOR == 2
    assert lines(voxels, seen((20, 1), (40, 1))) == ()


@pytest.mark.parametrize("voxels", [1, 9, 81])
def test_a_volume_far_outside_is_named(voxels: int) -> None:
    expected = f"organ: {voxels} ml, but 2 subjects in the validation set had 20 to 40 ml"
    assert lines(voxels, seen((20, 1), (40, 1))) == (expected,)


def test_more_pieces_than_twice_as_many_are_named() -> None:
    assert lines(20, seen((20, 1)), pieces=2) == ()
    assert lines(20, seen((20, 1)), pieces=3) == ("organ: 3 components, but 1 subject in the validation set had 1",)


def test_fewer_pieces_than_half_as_many_are_named() -> None:
    assert lines(20, seen((20, 2)), pieces=1) == ()
    assert lines(20, seen((20, 4), (20, 3)), pieces=1) == (
        "organ: 1 components, but 2 subjects in the validation set had 3 to 4",
    )


def test_a_structure_that_is_missing_though_all_subjects_have_it_is_named() -> None:
    assert lines(0, seen((20, 1), (40, 1))) == ("organ: not found, but 2 subjects of 2 in the validation set had it",)


def test_a_structure_that_some_subjects_lack_may_be_missing() -> None:
    assert lines(0, seen((20, 1), (0, 0))) == ()


def test_subjects_without_a_structure_do_not_widen_its_range() -> None:
    assert len(lines(2, seen((20, 1), (0, 0)))) == 1


def test_a_structure_that_no_subject_has_is_named_where_it_is_found() -> None:
    assert lines(3, seen((0, 0), (0, 0))) == ("organ: 3 ml found, but 0 of 2 subjects in the validation set had it",)
    assert lines(0, seen((0, 0), (0, 0))) == ()


def test_checks_say_whether_anything_was_compared() -> None:
    assert outcome(20, None) == (
        Check("review", "unchecked", "the model does not say what its validation set was like"),
        (),
    )
    assert outcome(20, seen((20, 1)))[0].outcome == "passed"
    assert outcome(1, seen((20, 1)))[0].outcome == "warning"
    other = ValidationRanges((ValidationSubject("1", None, {"another": Extent(1, 1)}),))
    check, found = outcome(20, other)
    assert (check.outcome, found) == ("unchecked", ())
    assert "no masks of organ" in check.detail


def test_large_volumes_are_said_in_plain_numbers() -> None:
    ranges = ValidationRanges((ValidationSubject("1", None, {"organ": Extent(1523.4, 1)}),))
    assert lines(20, ranges) == ("organ: 20 ml, but 1 subject in the validation set had 1523 ml",)


def test_a_mask_is_measured() -> None:
    mask = np.zeros((5, 6, 7), bool)
    mask[1:3, 1:3, 1:3] = mask[4, 5, 6] = True
    assert extent_of_mask(mask, 500.0) == Extent(4.5, 2)
    assert extent_of_mask(np.zeros((1, 1, 1), bool), 500.0) == Extent(0.0, 0)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    ranges = ValidationRanges((ValidationSubject("p1", "0", {"organ": Extent(20.5, 2), "other": Extent(0.0, 0)}),))
    (tmp_path / RANGES_FILE).write_bytes(validation_ranges_bytes(ranges))
    assert read_validation_ranges(tmp_path) == ranges


def test_a_package_without_the_file_knows_nothing(tmp_path: Path) -> None:
    assert read_validation_ranges(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 1, "subjects": [{"subject": 3}]}', "[]"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / RANGES_FILE).write_text(content)
    with pytest.raises(IntegrityError, match=r"validation_ranges\.json"):
        read_validation_ranges(tmp_path)
