"""What a contender is told to do in a process of its own, and what it says about it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal, TypeAlias

from benchmarks.sizes import SizeZYX, Stitching, Workload

Task: TypeAlias = Literal["segment", "score", "load"]
"""``segment``: from a volume in memory to labels in memory. ``score``: from file to file. ``load``: load the network
and evaluate one patch."""


@dataclass(frozen=True)
class Job:
    """One task on one study."""

    task: Task
    package: str
    """Folder of the model package, which holds the weights for everybody."""
    image: str
    """NIfTI file."""
    output: str
    """Where the labels go: .npy for ``segment``, .nii.gz for ``score``."""
    crop_size_zyx: SizeZYX
    stride_zyx: SizeZYX
    stitching: Stitching
    device: Literal["cpu", "cuda"] = "cpu"
    runtime: str = ""
    """Name of one of our runtimes; empty for peers."""
    precision: str = "fp32"
    """What that runtime computes in."""
    largest_components: bool = False
    """Whether only the largest component of each structure is kept."""

    @classmethod
    def of(
        cls,
        task: Task,
        workload: Workload,
        package: str,
        image: str,
        output: str,
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> Job:
        """A job on a workload."""
        return cls(
            task, package, image, output, workload.crop_size_zyx, workload.stride_zyx, workload.stitching, device
        )

    def text(self) -> str:
        """As one argument of a command line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def parse(cls, text: str) -> Job:
        """What :meth:`text` wrote."""
        fields = json.loads(text)
        for name in ("crop_size_zyx", "stride_zyx"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


@dataclass(frozen=True)
class Figures:
    """What a contender measures inside of its process."""

    seconds: float
    """Of the task, without imports, loading, and one patch before."""
    cpu_seconds: float
    """Of all threads, in the same time."""
    network_seconds: float | None = None
    """Of ``seconds``, inside of the network; None where nobody can tell."""
