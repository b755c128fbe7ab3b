"""Where a benchmark's files lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.sizes import NetworkSize, Workload


@dataclass(frozen=True)
class Inputs:
    """The folder with the volumes and the packages of one benchmark."""

    folder: Path

    def image(self, workload: Workload) -> Path:
        """The volume of a workload; workloads of the same size and number of classes share it."""
        z, y, x = workload.size_zyx
        return self.folder / "images" / f"{z}x{y}x{x}_{workload.network.classes}.nii.gz"

    def package(self, network: NetworkSize, *, exported: bool = False) -> Path:
        """The package of a network: as packaged, or exported to ONNX."""
        return self.folder / "packages" / network.name / ("onnx" if exported else "plain") / "final_model"

    def output(self, name: str, suffix: str) -> Path:
        """Where a contender's labels go."""
        folder = self.folder / "outputs"
        folder.mkdir(exist_ok=True)
        return folder / f"{name.replace(' ', '_')}{suffix}"
