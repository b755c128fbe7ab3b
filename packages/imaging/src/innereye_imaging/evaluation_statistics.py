"""Numbers over all subjects of an evaluation: a summary per structure, and a paired comparison of two models."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from innereye_imaging.evaluating import Evaluation

METRICS = {
    "dice": "Dice",
    "hausdorff_mm": "Hausdorff distance (mm)",
    "hausdorff_95_mm": "95 % Hausdorff distance (mm)",
    "mean_distance_mm": "mean distance (mm)",
}
"""Fields of StructureMetrics that are summarised, with their titles."""

_FEWEST_PAIRS = 6
"""With fewer, no difference can have a two-sided p below 0.05: the smallest is 2 / 2ⁿ."""


@dataclass(frozen=True)
class Summary:
    """One metric of one structure over all subjects for which it is defined."""

    subjects: int
    mean: float
    """NaN without any subject; infinite if one value is."""
    std: float
    """Of the sample (n − 1); NaN for fewer than two subjects, and if a value is infinite."""
    median: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Comparison:
    """The Dice of one structure from two models, paired by subject."""

    pairs: int
    """Subjects for which both are defined."""
    differing: int
    """Those with a difference, which are what the test is made of."""
    median_difference: float
    """Dice of the model minus Dice of the baseline."""
    p_value: float
    """Two-sided, of Wilcoxon's signed-rank test; NaN where there is no difference to test."""
    remark: str
    """What to know about the p value; empty where there is nothing."""


def summarize(evaluation: Evaluation) -> dict[str, dict[str, Summary]]:
    """Structure → metric → summary. Values that are NaN (empty in segmentation and mask) do not count."""
    return {
        name: {
            metric: _summary([getattr(subject.structures[name], metric) for subject in evaluation.subjects])
            for metric in METRICS
        }
        for name in evaluation.structure_names
    }


def compare(evaluation: Evaluation, baseline: Evaluation) -> dict[str, Comparison]:
    """Compare the Dice of two models on the same subjects, for every structure that both have.

    Wilcoxon's signed-rank test, two-sided, without pairs that do not differ (scipy).
    """
    common = [name for name in evaluation.structure_names if name in baseline.structure_names]
    return {name: _comparison(_dice(evaluation, name), _dice(baseline, name)) for name in common}


def _dice(evaluation: Evaluation, structure: str) -> dict[str, float]:
    return {subject.subject: subject.structures[structure].dice for subject in evaluation.subjects}


def _summary(values: Sequence[float]) -> Summary:
    defined = np.array([value for value in values if not math.isnan(value)])
    if not defined.size:
        return Summary(0, math.nan, math.nan, math.nan, math.nan, math.nan)
    finite = bool(np.isfinite(defined).all())
    return Summary(
        subjects=defined.size,
        mean=float(defined.mean()),
        std=float(defined.std(ddof=1)) if defined.size > 1 and finite else math.nan,
        median=float(np.median(defined)),
        minimum=float(defined.min()),
        maximum=float(defined.max()),
    )


def _comparison(dice: dict[str, float], baseline: dict[str, float]) -> Comparison:
    from scipy.stats import wilcoxon

    shared = [subject for subject in dice if subject in baseline]
    differences = np.array([dice[subject] - baseline[subject] for subject in shared])
    differences = differences[~np.isnan(differences)]
    nonzero = differences[differences != 0]
    result = Comparison(len(differences), len(nonzero), math.nan, math.nan, "")
    one_only = sum(math.isnan(dice[subject]) != math.isnan(baseline[subject]) for subject in shared)
    remarks = []
    if not differences.size:
        remarks.append("no subject has a Dice from both models")
    elif not nonzero.size:
        remarks.append("all differences are zero")
    elif nonzero.size < _FEWEST_PAIRS:
        remarks.append(f"{nonzero.size} differing pairs are too few: p cannot be below {2 / 2**nonzero.size:g}")
    if one_only:
        remarks.append(f"left out: {one_only} with a Dice from one model only")
    if differences.size:
        result = dataclasses.replace(result, median_difference=float(np.median(differences)))
    if nonzero.size:
        result = dataclasses.replace(result, p_value=float(wilcoxon(nonzero).pvalue))
    return dataclasses.replace(result, remark="; ".join(remarks))
