"""The rows of the table: what is compared, with the goals that are aimed at."""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from benchmarks.comparisons import Comparison, Goal, compare
from benchmarks.contenders import INNEREYE, MONAI, NNUNET, ONNX, OPENVINO, OPENVINO_BF16, OURS, TORCH, Contender
from benchmarks.inputs import Inputs
from benchmarks.processes import ContenderFailed, Usage, run
from benchmarks.sizes import Sizes, Workload
from benchmarks.studies import cold_start, network_share, overhead
from benchmarks.table import Line, lines_of, megabytes

_MEMORY_GOALS = {TORCH.name: 0.65, OPENVINO.name: 0.30, OPENVINO_BF16.name: 0.30}
_MEGABYTES_ABOVE_RUNTIME = {"average": 1200, "gaussian": 1200, "crop": 500}
_NETWORK_SHARE = 0.90
_COLD_START = 0.25

_FLOAT32_RUNTIMES = (TORCH, ONNX, OPENVINO)


@dataclass
class Bench:
    """One run of the benchmark, and what it has found so far."""

    sizes: Sizes
    inputs: Inputs
    rounds: int
    with_goals: bool
    """Goals are for the full sizes."""
    say: Callable[[str], None]
    lines: list[Line] = field(default_factory=list)
    measured: list[dict[str, Any]] = field(default_factory=list)

    def record(self, workload: str, who: str, **figures: object) -> None:
        """Keep every single figure, for the JSON document."""
        self.measured.append({"workload": workload, "who": who, **figures})

    def goal(self, text: str) -> str:
        """A goal as a remark, where there is one."""
        return f" ({text})" if self.with_goals else ""


def _goals(torch: float, float32: float, bf16: float) -> Mapping[str, Goal]:
    times = {TORCH.name: torch, OPENVINO.name: float32, OPENVINO_BF16.name: bf16}
    return {name: Goal(time, _MEMORY_GOALS[name]) for name, time in times.items()}


def _compare(bench: Bench, comparison: Comparison) -> None:
    results = compare(comparison, bench.inputs, bench.rounds, bench.say)
    bench.lines += lines_of(comparison, results, with_goals=bench.with_goals)
    for contender in comparison.contenders:
        name = contender.name
        bench.record(
            comparison.title,
            name,
            runs=[dataclasses.asdict(one) for one in results.runs.get(name, [])],
            labels_differing=results.differing.get(name),
            skipped=results.skipped.get(name),
        )


def _stride_is_patch(bench: Bench) -> None:
    goals = _goals(torch=0.62, float32=0.30, bf16=0.16)
    peers = (INNEREYE, MONAI, NNUNET)
    _compare(
        bench, Comparison("stride = patch, average", bench.sizes.stride_is_patch, (*OURS, *peers), INNEREYE, goals)
    )


def _gaussian(bench: Bench) -> None:
    goals = _goals(torch=0.62, float32=0.36, bf16=0.16)
    _compare(bench, Comparison("50 % overlap, gaussian", bench.sizes.gaussian, (*OURS, MONAI, NNUNET), MONAI, goals))


def _crop(bench: Bench) -> None:
    goals = _goals(torch=0.36, float32=0.20, bf16=0.11)
    _compare(bench, Comparison("50 % overlap, crop", bench.sizes.crop, (*OURS, INNEREYE), INNEREYE, goals))


def _gpu(bench: Bench) -> None:
    title = "GPU: 50 % overlap, gaussian"
    if not _has_gpu():
        bench.lines.append(Line(title, "all", remarks="skipped: PyTorch finds no CUDA GPU here"))
        return
    goals = {TORCH.name: Goal(0.5), ONNX.name: Goal(0.5)}
    contenders = (TORCH, ONNX, MONAI, NNUNET)
    _compare(bench, Comparison(title, bench.sizes.gaussian, contenders, MONAI, goals, device="cuda"))


def _has_gpu() -> bool:
    try:
        return run([sys.executable, "-c", "import torch; print(torch.cuda.is_available())"])[1].strip() == "True"
    except ContenderFailed:
        return False


def _large_study(bench: Bench) -> None:
    workload = bench.sizes.large_study
    title = f"{_text(workload)}: file to file"

    def measure(contender: Contender) -> Line:
        share = network_share(contender, workload, bench.inputs)
        bench.record(title, contender.name, run=dataclasses.asdict(share.run))
        figures = share.run.figures
        return Line(
            title,
            contender.name,
            seconds="" if figures is None else f"{figures.seconds:.2f}",
            peak=megabytes(share.run.usage.peak_bytes),
            remarks=f"network {share.fraction:.1%} of the time" + bench.goal(f"≥ {_NETWORK_SHARE:.0%}"),
        )

    _for_each(bench, title, _FLOAT32_RUNTIMES, measure)


def _cold_start(bench: Bench) -> None:
    workload = bench.sizes.cold_start
    title = "small model, cold start to file"

    def measure(contender: Contender) -> Line:
        result = cold_start(contender, workload, bench.inputs, bench.rounds)
        bench.record(
            title,
            contender.name,
            runs=[dataclasses.asdict(one) for one in result.ours],
            monai=[dataclasses.asdict(one) for one in result.monai],
            labels_differing=result.differing,
        )
        goal = f" (≤ {_COLD_START})" if contender == OPENVINO and bench.with_goals else ""
        seconds = statistics.median(one.wall_seconds for one in result.ours)
        return Line(
            title,
            contender.name,
            seconds=f"{seconds:.2f}",
            time_ratio=f"{result.ratio(_wall_seconds):.2f}{goal}",
            cpu_ratio=f"{result.ratio(_cpu_seconds):.2f}",
            peak=megabytes(statistics.median(one.peak_bytes for one in result.ours)),
            memory_ratio=f"{result.ratio(_peak_bytes):.2f}",
            differing=f"{result.differing:.1e}",
            remarks=f"MONAI {statistics.median(one.wall_seconds for one in result.monai):.2f} s",
        )

    missing = MONAI.missing()
    if missing is not None:
        bench.lines.append(Line(title, "all", remarks=f"skipped: {missing}"))
        return
    _for_each(bench, title, _FLOAT32_RUNTIMES, measure)


def _wall_seconds(usage: Usage) -> float:
    return usage.wall_seconds


def _cpu_seconds(usage: Usage) -> float:
    return usage.cpu_seconds


def _peak_bytes(usage: Usage) -> float:
    return usage.peak_bytes


def _memory(bench: Bench, stitching: Literal["average", "crop"]) -> None:
    workload = bench.sizes.memory_average if stitching == "average" else bench.sizes.memory_crop
    title = f"{_text(workload)}: memory, {stitching}"

    def measure(contender: Contender) -> Line:
        found = overhead(contender, workload, bench.inputs)
        bench.record(title, contender.name, **dataclasses.asdict(found))
        goal = bench.goal(f"≤ {_MEGABYTES_ABOVE_RUNTIME[stitching]}")
        return Line(
            title,
            contender.name,
            peak=megabytes(found.study.peak_bytes),
            remarks=f"{megabytes(found.bytes_above_runtime)} MB{goal} above the runtime's "
            f"{megabytes(found.runtime.peak_bytes)}; component analysis adds {megabytes(found.bytes_of_components)} MB",
        )

    _for_each(bench, title, _FLOAT32_RUNTIMES, measure)


def _for_each(
    bench: Bench, title: str, contenders: tuple[Contender, ...], measure: Callable[[Contender], Line]
) -> None:
    for contender in contenders:
        reason = contender.missing()
        if reason is None:
            bench.say(f"{title}: {contender.name}")
            try:
                bench.lines.append(measure(contender))
            except ContenderFailed as error:
                reason = str(error)
        if reason is not None:
            bench.lines.append(Line(title, contender.name, remarks=f"skipped: {reason}"))


def _text(workload: Workload) -> str:
    return f"{'×'.join(map(str, workload.size_zyx))}, {workload.network.classes} classes"


ROWS: Mapping[str, Callable[[Bench], None]] = {
    "stride-is-patch": _stride_is_patch,
    "gaussian": _gaussian,
    "crop": _crop,
    "gpu": _gpu,
    "large-study": _large_study,
    "cold-start": _cold_start,
    "memory-average": partial(_memory, stitching="average"),
    "memory-crop": partial(_memory, stitching="crop"),
}
