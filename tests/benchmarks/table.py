"""The one table: a line for each contender of each comparison, and one for each measurement of a whole study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.comparisons import Comparison, Goal, Results
from benchmarks.contenders import Contender
from benchmarks.processes import Run

_MEGABYTE = 1e6

HEADER = ("workload", "who", "s", "time ×", "CPU ×", "peak MB", "memory ×", "labels differ", "remarks")


@dataclass(frozen=True)
class Line:
    """A line of the table; what is empty was not measured."""

    workload: str
    who: str
    seconds: str = ""
    time_ratio: str = ""
    cpu_ratio: str = ""
    peak: str = ""
    memory_ratio: str = ""
    differing: str = ""
    remarks: str = ""

    def cells(self) -> tuple[str, ...]:
        """In the order of the header."""
        return (
            self.workload,
            self.who,
            self.seconds,
            self.time_ratio,
            self.cpu_ratio,
            self.peak,
            self.memory_ratio,
            self.differing,
            self.remarks,
        )


def seconds_of(run: Run) -> float:
    """Of the task alone."""
    return run.usage.wall_seconds if run.figures is None else run.figures.seconds


def cpu_seconds_of(run: Run) -> float:
    """Of the task alone, all threads."""
    return run.usage.cpu_seconds if run.figures is None else run.figures.cpu_seconds


def peak_of(run: Run) -> float:
    """Bytes, of the whole process."""
    return float(run.usage.peak_bytes)


def megabytes(count: float) -> str:
    """As a number of the table."""
    return f"{count / _MEGABYTE:.0f}"


def lines_of(comparison: Comparison, results: Results, *, with_goals: bool) -> list[Line]:
    """A line for each contender; ratios are to the fastest and to the leanest peer."""
    peers = [contender for contender in comparison.contenders if not contender.ours]
    fastest = results.best(peers, seconds_of)
    leanest = results.best(peers, peak_of)
    return [
        _line(comparison, contender, results, fastest, leanest, with_goals=with_goals)
        for contender in comparison.contenders
    ]


def _line(
    comparison: Comparison,
    contender: Contender,
    results: Results,
    fastest: str | None,
    leanest: str | None,
    *,
    with_goals: bool,
) -> Line:
    name = contender.name
    if name in results.skipped:
        return Line(comparison.title, name, remarks=f"skipped: {results.skipped[name]}")
    goal = comparison.goals.get(name, Goal()) if with_goals else Goal()
    differing = "reference" if contender == comparison.reference else ""
    if name in results.differing:
        differing = f"{results.differing[name]:.1e}"
    time_ratio = cpu_ratio = memory_ratio = ""
    if fastest is not None and leanest is not None:
        time_ratio = _with_goal(results.ratio(name, fastest, seconds_of), goal.time)
        cpu_ratio = f"{results.ratio(name, fastest, cpu_seconds_of):.2f}"
        memory_ratio = _with_goal(results.ratio(name, leanest, peak_of), goal.memory)
    return Line(
        comparison.title,
        name,
        f"{results.median(name, seconds_of):.2f}",
        time_ratio,
        cpu_ratio,
        megabytes(results.median(name, peak_of)),
        memory_ratio,
        differing,
        _remarks(name, results),
    )


def _with_goal(ratio: float, goal: float | None) -> str:
    return f"{ratio:.2f}" if goal is None else f"{ratio:.2f} (≤ {goal:.2f})"


def _remarks(name: str, results: Results) -> str:
    shares = [
        run.figures.network_seconds / run.figures.seconds
        for run in results.runs[name]
        if run.figures is not None and run.figures.network_seconds is not None
    ]
    return f"network {min(shares):.0%} of the time" if shares else ""


def as_text(lines: Sequence[Line]) -> str:
    """The table, in Markdown."""
    rows = [HEADER, *(line.cells() for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([texts[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *texts[1:]])
