"""Packages that really score, images for them, and how a refusal of the command line looks."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from innereye_core.manifest import read_manifest, write_manifest

MODEL_YAML = """\
schema_version: 1
model_name: Ball
structures: [{name: ball}]
image_channels: [ct, T2 weighted]
network:
  factory: ballnets.nets:build
  arguments: {}
  size_multiple_zyx: [1, 1, 1]
  minimum_size_zyx: [1, 1, 1]
inference: {crop_size_zyx: [8, 8, 8]}
extra_code_directory: ballnets
"""

NETS = """\
import torch


def build():
    return torch.nn.Conv3d(2, 2, 3, padding=1)
"""


def write_scoring_package(folder: Path) -> Path:
    """A package whose network is one convolution, with code that ``.amlignore`` and ``.gitignore`` would drop."""
    import torch

    from innereye_core import package

    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "ballnets").mkdir()
    (run / "ballnets" / "nets.py").write_text(NETS)
    (run / "model.yaml").write_text(MODEL_YAML)
    (run / "environment.yml").write_text("name: ball\nchannels: [conda-forge]\ndependencies: [python=3.11]\n")
    torch.manual_seed(0)
    state = {"epoch": 1, "state_dict": torch.nn.Conv3d(2, 2, 3, padding=1).state_dict()}
    torch.save(state, run / "checkpoints" / "1_checkpoint.pth.tar")
    made = package(run, output=folder).folder
    for path in (".amlignore", ".gitignore", "outputs/table.csv", "docs/Übersicht.txt", "old.pyc"):
        target = made / "ballnets" / path
        target.parent.mkdir(exist_ok=True)
        target.write_text("*\n")
    write_manifest(made, read_manifest(made), {})
    return made


def write_image(path: Path, seed: int, shape_xyz: tuple[int, int, int] = (10, 9, 8)) -> Path:
    voxels = np.random.default_rng(seed).normal(100, 30, shape_xyz).astype(np.int16)
    image = nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 3.0, 1.0]))
    # As the gzip command packs: the file's name stays in the header.
    with path.open("wb") as raw, gzip.GzipFile(filename=path.name, mode="wb", fileobj=raw) as file:
        file.write(image.to_bytes())
    return path


def refused(outcome: Any, exit_code: int, *words: str) -> None:
    """Assert that it ended in one line that says why, and that stdout is empty."""
    assert outcome.exit_code == exit_code, outcome
    assert outcome.stdout == ""
    errors = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, outcome.stderr
    assert errors == outcome.stderr.splitlines()[-1:]
    assert "Traceback" not in outcome.stderr
    for word in words:
        assert word in errors[0]
