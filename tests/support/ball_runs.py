"""Small real runs: a UNet3D with few channels, images of a bright ball, three epochs of checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

MODEL_YAML = """\
schema_version: 1
model_name: Ball
structures:
  - {name: ball, colour: [255, 0, 0]}
image_channels: [mr]
network:
  factory: innereye_segmentation.networks:UNet3D
  arguments: {input_channels: 1, feature_channels: 2, classes: 2, downsampling_paths: 1}
input: {modality: mr, spacing_xyz_mm: [2.0, 2.0, 2.0], orientation: RAS}
normalization: {method: simple_norm}
inference: {crop_size_zyx: [8, 12, 12], stride_zyx: [4, 6, 6]}
"""

SHAPE_XYZ = (20, 18, 14)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def write_ball(folder: Path, seed: int) -> tuple[Path, Path]:
    """An image with a bright ball in noise, and the ball's mask."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(6, 10, 3)
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in SHAPE_XYZ), indexing="ij"))
    ball = np.linalg.norm(grid - centre[:, None, None, None], axis=0) < 4.5
    image = (100 + 400 * ball + rng.normal(0, 30, SHAPE_XYZ)).astype(np.int16)
    paths = folder / f"image_{seed}.nii.gz", folder / f"ball_{seed}.nii.gz"
    nibabel.save(nibabel.Nifti1Image(image, AFFINE), paths[0])
    nibabel.save(nibabel.Nifti1Image(ball.astype(np.uint8), AFFINE), paths[1])
    return paths


def write_run(folder: Path, seed: int = 0) -> Path:
    """A local run with three epochs of training on one subject, and two subjects for validation."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "model.yaml").write_text(MODEL_YAML)
    (folder / "environment.yml").write_text("name: ball\nchannels: [conda-forge]\ndependencies: [python>=3.11]\n")
    rows = ["subject,filePath,channel,split"]
    for subject, split in ((1, "train"), (2, "val"), (3, "val")):
        image, mask = write_ball(folder, subject)
        rows += [f"{subject},{image.name},mr,{split}", f"{subject},{mask.name},ball,{split}"]
    (folder / "dataset.csv").write_text("\n".join(rows) + "\n")
    for epoch, state in train(folder, seed):
        torch.save(state, folder / "checkpoints" / f"{epoch}_checkpoint.pth.tar")
    return folder


STEPS_AND_RATES = ((1, 0.1), (80, 0.3), (1, 50.0))
"""Epoch 1 has learnt nothing, epoch 2 finds the ball, epoch 3 is spoilt by a step that is far too large."""


def train(folder: Path, seed: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Train on subject 1, and give each epoch's number and checkpoint as InnerEye wrote it."""
    from innereye_segmentation.networks import UNet3D

    torch.manual_seed(seed)
    image, mask = (nibabel.load(folder / f"{name}_1.nii.gz").get_fdata().T for name in ("image", "ball"))
    patch = np.s_[:12, :16, :16]
    inputs = torch.from_numpy((image - image.mean()) / image.std())[patch][None, None].float()
    target = torch.from_numpy(mask.copy())[patch][None].long()
    network = UNet3D(input_channels=1, feature_channels=2, classes=2, downsampling_paths=1)
    parameters = dict(network.named_parameters())
    # Plain gradient descent by hand: torch.optim takes ten times longer to import than this takes to run.
    for epoch, (steps, rate) in enumerate(STEPS_AND_RATES, start=1):
        for _ in range(steps):
            loss = torch.nn.functional.cross_entropy(network(inputs), target, weight=torch.tensor([1.0, 3.0]))
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            with torch.no_grad():
                for parameter, gradient in zip(parameters.values(), gradients, strict=True):
                    parameter -= rate * gradient
        optimizer_state = {"state": dict(zip(parameters, gradients, strict=True))}
        yield epoch, {"epoch": epoch, "state_dict": network.state_dict(), "opt_dict": optimizer_state}
