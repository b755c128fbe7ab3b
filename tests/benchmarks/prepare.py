"""Makes what a benchmark works on, in a process of its own: the volumes as NIfTI files, and model packages.

``python -m benchmarks.prepare FOLDER SIZES`` leaves what is there already as it is.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.inputs import Inputs
from benchmarks.network import arguments_of, trained
from benchmarks.phantom import LEVEL, SPACING_XYZ_MM, WINDOW, phantom, through_window
from benchmarks.sizes import FULL, NETWORKS, QUICK, NetworkSize, Sizes
from innereye_core import package
from innereye_imaging.geometry import Image
from innereye_imaging.nifti import Nifti

_TRAINING_SIZE_ZYX = (48, 96, 96)
_TRAINING_SEED, _SEED = 1, 2

_MODEL_YAML = """\
schema_version: 1
model_name: Benchmark-{name}
structures: [{structures}]
image_channels: [ct]
network:
  factory: innereye_segmentation.networks:UNet3D
  arguments: {arguments}
input: {{modality: ct}}
normalization: {{method: ct_window, level: {level}, window: {window}, output_range: [-1, 1]}}
inference: {{crop_size_zyx: {crop}, stitching: average}}
"""


def prepare(inputs: Inputs, sizes: Sizes) -> None:
    """Make every volume and every package."""
    for workload in sizes.workloads():
        image = inputs.image(workload)
        if not image.is_file():
            image.parent.mkdir(parents=True, exist_ok=True)
            _write(image, phantom(workload.size_zyx, workload.network.classes, _SEED)[0])
    for size in NETWORKS:
        if not inputs.package(size).is_dir():
            crop = next(workload for workload in sizes.workloads() if workload.network == size).crop_size_zyx
            _write_package(inputs.package(size), size, crop)


def _write(path: Path, volume: NDArray[np.int16]) -> None:
    Nifti().write(path, Image(volume, np.diag([*SPACING_XYZ_MM, 1.0])))


def _write_package(folder: Path, size: NetworkSize, crop_size_zyx: tuple[int, int, int]) -> None:
    volume, labels = phantom(_TRAINING_SIZE_ZYX, size.classes, _TRAINING_SEED)
    network = trained(size, through_window(volume), labels)
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(temporary)
        (run / "checkpoints").mkdir()
        torch.save({"epoch": 1, "state_dict": network.state_dict()}, run / "checkpoints" / "1_checkpoint.pth.tar")
        text = _MODEL_YAML.format(
            name=size.name,
            structures=", ".join(f"{{name: organ{number}}}" for number in range(1, size.classes)),
            arguments=dict(arguments_of(size)),
            level=LEVEL,
            window=WINDOW,
            crop=list(crop_size_zyx),
        )
        (run / "model.yaml").write_text(text, encoding="utf-8")
        package(run, output=folder.parent)


if __name__ == "__main__":
    prepare(Inputs(Path(sys.argv[1])), FULL if sys.argv[2] == FULL.name else QUICK)
