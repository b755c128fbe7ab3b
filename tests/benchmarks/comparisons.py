"""Compares contenders on one workload: in turn, each in a fresh process, round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from benchmarks.contenders import Contender
from benchmarks.exports import package_of
from benchmarks.inputs import Inputs
from benchmarks.jobs import Job
from benchmarks.labels import disagreement
from benchmarks.processes import ContenderFailed, Run, run_job
from benchmarks.sizes import Workload


@dataclass(frozen=True)
class Goal:
    """What is aimed at, as a ratio to the best peer."""

    time: float | None = None
    memory: float | None = None


@dataclass(frozen=True)
class Comparison:
    """What is compared on which workload."""

    title: str
    workload: Workload
    contenders: tuple[Contender, ...]
    reference: Contender
    """Whose labels the others are compared with."""
    goals: Mapping[str, Goal]
    """By name of the contender."""
    device: Literal["cpu", "cuda"] = "cpu"


@dataclass
class Results:
    """What was measured, by name of the contender."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    differing: dict[str, float] = field(default_factory=dict)
    """Fraction of voxels with another label than the reference; the largest of all rounds."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Why a contender has no figures."""

    def median(self, name: str, figure: Callable[[Run], float]) -> float:
        """Of all rounds."""
        return statistics.median(map(figure, self.runs[name]))

    def ratio(self, name: str, other: str, figure: Callable[[Run], float]) -> float:
        """The median of the ratios of each round."""
        pairs = zip(self.runs[name], self.runs[other], strict=True)
        return statistics.median(figure(a) / figure(b) for a, b in pairs)

    def best(self, contenders: Sequence[Contender], figure: Callable[[Run], float]) -> str | None:
        """Who of these that took part has the lowest median."""
        names = [contender.name for contender in contenders if self.runs.get(contender.name)]
        return min(names, key=lambda name: self.median(name, figure), default=None)


def compare(comparison: Comparison, inputs: Inputs, rounds: int, say: Callable[[str], None]) -> Results:
    """Measure every contender that is there, once per round."""
    results, packages = Results(), {}
    for contender in comparison.contenders:
        reason = contender.missing()
        if reason is None:
            try:
                packages[contender.name] = package_of(contender, comparison.workload.network, inputs)
            except ContenderFailed as error:
                reason = str(error)
        if reason is not None:
            results.skipped[contender.name] = reason
    for number in range(1, rounds + 1):
        for contender in comparison.contenders:
            if contender.name not in results.skipped:
                say(f"{comparison.title}: {contender.name}, round {number} of {rounds}")
                _measure(comparison, contender, packages[contender.name], inputs, results)
        _compare_labels(comparison, inputs, results)
    return results


def _measure(comparison: Comparison, contender: Contender, package: Path, inputs: Inputs, results: Results) -> None:
    workload = comparison.workload
    job = Job.of(
        "segment",
        workload,
        str(package),
        str(inputs.image(workload)),
        str(_labels(inputs, contender)),
        comparison.device,
    )
    try:
        run = run_job(contender.module, replace(job, runtime=contender.runtime, precision=contender.precision))
    except ContenderFailed as error:
        results.skipped[contender.name] = str(error)
        results.runs.pop(contender.name, None)
        results.differing.pop(contender.name, None)
        return
    results.runs.setdefault(contender.name, []).append(run)


def _compare_labels(comparison: Comparison, inputs: Inputs, results: Results) -> None:
    reference = comparison.reference
    if reference.name not in results.runs:
        return
    for name in results.runs:
        if name != reference.name:
            contender = next(one for one in comparison.contenders if one.name == name)
            found = disagreement(_labels(inputs, contender), _labels(inputs, reference))
            results.differing[name] = max(found, results.differing.get(name, 0.0))


def _labels(inputs: Inputs, contender: Contender) -> Path:
    return inputs.output(contender.name, ".npy")
