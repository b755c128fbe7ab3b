"""Whole studies, from file to file: the network's share of the time, the memory around it, and a cold start."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.contenders import MONAI, Contender
from benchmarks.exports import package_of
from benchmarks.inputs import Inputs
from benchmarks.jobs import Job, Task
from benchmarks.labels import disagreement
from benchmarks.processes import Run, Usage, run, run_job
from benchmarks.sizes import Workload


@dataclass(frozen=True)
class Share:
    """How much of the time of a whole study was spent inside of the network."""

    run: Run

    @property
    def fraction(self) -> float:
        """From 0 to 1."""
        figures = self.run.figures
        if figures is None or figures.network_seconds is None:
            raise ValueError("the network's time was not taken")
        return figures.network_seconds / figures.seconds


@dataclass(frozen=True)
class Overhead:
    """The peak memory of a whole study beside that of the runtime alone."""

    study: Usage
    runtime: Usage
    """Of a process that loads the network and evaluates one patch."""
    with_components: Usage
    """Of the study where the largest component of every structure is kept."""

    @property
    def bytes_above_runtime(self) -> int:
        """What the study adds."""
        return self.study.peak_bytes - self.runtime.peak_bytes

    @property
    def bytes_of_components(self) -> int:
        """What component analysis adds to that."""
        return self.with_components.peak_bytes - self.study.peak_bytes


@dataclass
class ColdStart:
    """Whole commands, from the start of Python to a file on disk, round by round."""

    ours: list[Usage] = field(default_factory=list)
    monai: list[Usage] = field(default_factory=list)
    differing: float = 0.0
    """Fraction of voxels with another label than MONAI's."""

    def ratio(self, figure: Callable[[Usage], float]) -> float:
        """Ours to MONAI's: the median of the ratios of each round."""
        return statistics.median(figure(a) / figure(b) for a, b in zip(self.ours, self.monai, strict=True))


def network_share(contender: Contender, workload: Workload, inputs: Inputs) -> Share:
    """Score one large study.

    Raises:
        ContenderFailed: it cannot be scored.
    """
    return Share(run_job(contender.module, _job("score", contender, workload, inputs)))


def overhead(contender: Contender, workload: Workload, inputs: Inputs) -> Overhead:
    """Score one large CT without posteriors, and load its network alone.

    Raises:
        ContenderFailed: it cannot be scored.
    """
    job = _job("score", contender, workload, inputs)
    study = run_job(contender.module, job)
    alone = run_job(contender.module, replace(job, task="load"))
    components = run_job(contender.module, replace(job, largest_components=True))
    return Overhead(study.usage, alone.usage, components.usage)


def cold_start(contender: Contender, workload: Workload, inputs: Inputs, rounds: int) -> ColdStart:
    """``innereye score`` and a script with MONAI, in turn, on the same study.

    Raises:
        ContenderFailed: one of them cannot score it.
    """
    result = ColdStart()
    ours = _job("score", contender, workload, inputs)
    theirs = _job("score", MONAI, workload, inputs)
    for _ in range(rounds):
        command = ["innereye_core", "score", ours.package, ours.image, "--output", ours.output]
        usage, _ = run([sys.executable, "-m", *command, "--overwrite", "--runtime", contender.runtime])
        result.ours.append(usage)
        usage, _ = run([sys.executable, "-m", "benchmarks.peers.monai_cold", theirs.text()])
        result.monai.append(usage)
        result.differing = max(result.differing, disagreement(Path(ours.output), Path(theirs.output)))
    return result


def _job(task: Task, contender: Contender, workload: Workload, inputs: Inputs) -> Job:
    package = package_of(contender, workload.network, inputs)
    output = inputs.output(contender.name, ".nii.gz")
    job = Job.of(task, workload, str(package), str(inputs.image(workload)), str(output))
    return replace(job, runtime=contender.runtime, precision=contender.precision)
