"""The selection policies of core, on scores: best validation Dice (InnerEye's rule), last, epoch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from innereye_core.builtin.policies import BestValidationDice, LastEpoch, NamedEpoch
from innereye_core.errors import InputError, UsageError
from innereye_core.model import Candidate, ScoredCandidate, SubjectScore

NAN = math.nan


def scored(epoch: int, *subjects: Mapping[str, float]) -> ScoredCandidate:
    """An epoch with the Dice values of each subject."""
    scores = tuple(SubjectScore(str(number), dice) for number, dice in enumerate(subjects))
    return ScoredCandidate(Candidate(epoch, Path(f"{epoch}_checkpoint.pth.tar"), "toy"), scores)


def best(*candidates: ScoredCandidate) -> int:
    return BestValidationDice().choose(candidates)


# --- scores -----------------------------------------------------------------------------------------------------------


def test_score_of_a_subject_is_the_mean_over_its_structures() -> None:
    assert SubjectScore("p1", {"a": 0.5, "b": 0.9}).mean_dice == pytest.approx(0.7)


def test_structure_without_a_dice_does_not_count_for_its_subject() -> None:
    assert SubjectScore("p1", {"a": NAN, "b": 0.6}).mean_dice == 0.6


def test_score_of_an_epoch_is_the_mean_over_subjects_not_over_values() -> None:
    # Over all four values it would be (0.2 + 0.2 + 0.2 + 0.8) / 4 = 0.35.
    epoch = scored(1, {"a": 0.2, "b": 0.2, "c": 0.2}, {"a": 0.8, "b": NAN, "c": NAN})
    assert epoch.score == pytest.approx(0.5)


def test_subject_without_any_dice_does_not_count_for_its_epoch() -> None:
    assert scored(1, {"a": 0.6}, {"a": NAN}).score == 0.6


def test_epoch_without_a_countable_subject_has_no_score() -> None:
    assert math.isnan(scored(1, {"a": NAN}).score)
    assert math.isnan(scored(1).score)


def test_dice_of_a_structure_is_the_mean_over_the_subjects_that_have_it() -> None:
    structures = scored(1, {"a": 0.2, "b": NAN}, {"a": 0.4, "b": NAN}).structures
    assert structures["a"] == pytest.approx(0.3)
    assert math.isnan(structures["b"])


# --- best_validation_dice ---------------------------------------------------------------------------------------------


def test_highest_dice_wins() -> None:
    assert best(scored(1, {"a": 0.5}), scored(2, {"a": 0.8}), scored(3, {"a": 0.7})) == 2


def test_tie_goes_to_the_lowest_epoch() -> None:
    assert best(scored(10, {"a": 0.7}), scored(20, {"a": 0.7})) == 10


def test_epoch_without_a_score_cannot_win() -> None:
    assert best(scored(1, {"a": NAN}), scored(2, {"a": 0.0}), scored(3, {"a": NAN})) == 2


def test_one_subject_without_any_dice_does_not_decide() -> None:
    # InnerEye let the first epoch win here: one NaN made every comparison false.
    assert best(scored(1, {"a": 0.2}, {"a": NAN}), scored(2, {"a": 0.9}, {"a": NAN})) == 2


def test_no_epoch_with_a_score_is_an_error() -> None:
    with pytest.raises(InputError, match=r"no epoch \(1, 2\) has a defined validation Dice"):
        best(scored(1, {"a": NAN}), scored(2, {"a": NAN}))


@pytest.mark.parametrize("case", ["plain", "tie_first_wins", "one_structure_nan"])
def test_cases_of_innereye(shared: Path, case: str) -> None:
    golden = json.loads((shared / "golden" / "select" / "best_epoch.json").read_text())[case]
    images: Mapping[str, Sequence[Mapping[str, float]]] = golden["per_image_structure_dice"]
    candidates = [scored(epoch, *images[str(epoch)]) for epoch in sorted(golden["insertion_order"])]

    assert {str(c.epoch): pytest.approx(c.score) for c in candidates} == golden["epoch_dice"]
    assert best(*candidates) == golden["best_epoch"]


# --- last and epoch ---------------------------------------------------------------------------------------------------


def test_last_takes_the_highest_epoch_whatever_the_scores() -> None:
    assert LastEpoch().choose([scored(9, {"a": 0.9}), scored(100, {"a": 0.1})]) == 100


def test_epoch_takes_the_only_candidate() -> None:
    assert NamedEpoch().choose([scored(7)]) == 7


def test_epoch_wants_to_know_which() -> None:
    with pytest.raises(UsageError, match=r"exactly one candidate, and there are 1, 2; name it with --epochs-to-test"):
        NamedEpoch().choose([scored(1), scored(2)])


@pytest.mark.parametrize(("policy", "needs"), [(BestValidationDice, True), (LastEpoch, False), (NamedEpoch, False)])
def test_only_best_validation_dice_needs_scores(policy: type[LastEpoch], needs: bool) -> None:
    assert policy().needs_scores is needs
