"""Numbers over all subjects: what counts, what does not, and when a comparison of two models says nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest
from scipy.stats import wilcoxon

from innereye_imaging.evaluating import Evaluation, SubjectMetrics
from innereye_imaging.evaluation_statistics import compare, summarize
from innereye_imaging.metrics import StructureMetrics

NAN, INF = math.nan, math.inf


def evaluation(dice: Mapping[str, Sequence[float]], distances: Sequence[float] = ()) -> Evaluation:
    """Subjects 0, 1, … with these Dice values per structure, and these distances for all structures."""
    count = max(len(values) for values in dice.values())
    return Evaluation(
        model="Test:1",
        digest="sha256:0",
        runtime="numpy",
        device="cpu",
        structure_names=tuple(dice),
        subjects=tuple(
            SubjectMetrics(
                str(i),
                {
                    name: StructureMetrics(values[i], *([distances[i] if distances else 1.0] * 3), 1.0, 1.0)
                    for name, values in dice.items()
                },
            )
            for i in range(count)
        ),
        failures={},
    )


def test_a_summary_has_mean_deviation_median_and_extremes() -> None:
    found = summarize(evaluation({"organ": [0.5, 0.7, 0.9, 0.9]}))["organ"]["dice"]
    assert (found.subjects, found.minimum, found.maximum) == (4, 0.5, 0.9)
    assert found.mean == pytest.approx(0.75)
    assert found.median == pytest.approx(0.8)
    assert found.std == pytest.approx(math.sqrt((0.0625 + 0.0025 + 0.0225 + 0.0225) / 3))


def test_a_structure_that_is_in_neither_does_not_count() -> None:
    found = summarize(evaluation({"organ": [0.5, NAN, 0.7], "never": [NAN, NAN, NAN]}))
    assert (found["organ"]["dice"].subjects, found["organ"]["dice"].mean) == (2, pytest.approx(0.6))
    assert found["never"]["dice"].subjects == 0
    assert math.isnan(found["never"]["dice"].mean)


def test_a_structure_that_was_missed_makes_the_mean_distance_infinite_and_not_the_median() -> None:
    found = summarize(evaluation({"organ": [0.9, 0.9, 0.0]}, distances=[1.0, 2.0, INF]))["organ"]["hausdorff_mm"]
    assert (found.mean, found.median, found.maximum) == (INF, 2.0, INF)
    assert math.isnan(found.std)


def test_one_subject_has_no_deviation() -> None:
    found = summarize(evaluation({"organ": [0.5]}))["organ"]["dice"]
    assert found.mean == 0.5
    assert math.isnan(found.std)


BETTER = [0.91, 0.85, 0.88, 0.79, 0.93, 0.90, 0.87, 0.95]
WORSE = [0.90, 0.80, 0.85, 0.70, 0.91, 0.94, 0.80, 0.89]


def test_models_are_compared_by_wilcoxons_signed_rank_test() -> None:
    found = compare(evaluation({"organ": BETTER}), evaluation({"organ": WORSE}))["organ"]
    assert (found.pairs, found.differing, found.remark) == (8, 8, "")
    assert found.p_value == pytest.approx(wilcoxon(BETTER, WORSE).pvalue)
    assert found.median_difference == pytest.approx(0.04)


def test_the_p_value_is_that_of_counting_ranks() -> None:
    """All six differ in the same direction: two of the 2⁶ assignments of signs are as extreme."""
    better = [0.5 + step / 100 for step in (1, 2, 3, 4, 5, 6)]
    found = compare(evaluation({"organ": better}), evaluation({"organ": [0.5] * 6}))["organ"]
    assert found.p_value == pytest.approx(2 / 64)


def test_subjects_without_difference_are_no_part_of_the_test() -> None:
    found = compare(evaluation({"organ": [*BETTER, 0.5, 0.5]}), evaluation({"organ": [*WORSE, 0.5, 0.5]}))["organ"]
    assert (found.pairs, found.differing) == (10, 8)
    assert found.p_value == pytest.approx(wilcoxon(BETTER, WORSE).pvalue)


def test_equal_models_are_not_tested() -> None:
    found = compare(evaluation({"organ": BETTER}), evaluation({"organ": BETTER}))["organ"]
    assert (found.pairs, found.differing, found.median_difference) == (8, 0, 0.0)
    assert math.isnan(found.p_value)
    assert found.remark == "all differences are zero"


@pytest.mark.parametrize(("count", "smallest"), [(1, "1"), (3, "0.25"), (5, "0.0625")])
def test_too_few_pairs_are_remarked_on(count: int, smallest: str) -> None:
    found = compare(evaluation({"organ": BETTER[:count]}), evaluation({"organ": WORSE[:count]}))["organ"]
    assert found.remark == f"{count} differing pairs are too few: p cannot be below {smallest}"
    assert float(smallest) <= found.p_value <= 1


def test_a_subject_whose_dice_is_defined_for_one_model_only_is_left_out_and_counted() -> None:
    """The mask is empty: one model found nothing (NaN), the other something (0)."""
    found = compare(evaluation({"organ": [*BETTER, NAN]}), evaluation({"organ": [*WORSE, 0.0]}))["organ"]
    assert found.pairs == 8
    assert found.remark == "left out: 1 with a Dice from one model only"


def test_without_a_pair_there_is_nothing_to_compare() -> None:
    found = compare(evaluation({"organ": [NAN, NAN]}), evaluation({"organ": [NAN, NAN]}))["organ"]
    assert (found.pairs, found.remark) == (0, "no subject has a Dice from both models")
    assert math.isnan(found.median_difference)


def test_only_subjects_and_structures_that_both_have_are_compared() -> None:
    other = evaluation({"organ": WORSE[:7], "bone": WORSE[:7]})
    found = compare(evaluation({"organ": BETTER, "vessel": BETTER}), other)
    assert list(found) == ["organ"]
    assert found["organ"].pairs == 7
