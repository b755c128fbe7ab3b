"""The network that everybody runs: built from its arguments, and trained for a moment to answer like a real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.sizes import NetworkSize
from innereye_segmentation.networks.unet3d import UNet3D

_STEPS = 40
_LEARNING_RATE = 2e-3
_PATCH_ZYX = (32, 48, 48)
_SEED = 1


class Arguments(TypedDict):
    """Of a UNet3D."""

    input_channels: int
    feature_channels: int
    classes: int
    downsampling_paths: int


def arguments_of(size: NetworkSize) -> Arguments:
    """The constructor's arguments."""
    return Arguments(
        input_channels=1,
        feature_channels=size.feature_channels,
        classes=size.classes,
        downsampling_paths=size.levels,
    )


def description(package: Path) -> Arguments:
    """The arguments that a package names."""
    config = json.loads((package / "model_inference_config.json").read_text(encoding="utf-8"))
    arguments: Arguments = config["network"]["arguments"]
    return arguments


def build(arguments: Arguments) -> UNet3D:
    """The network with random weights."""
    return UNet3D(**arguments)


def trained(size: NetworkSize, volume: NDArray[np.float32], labels: NDArray[np.uint8]) -> UNet3D:
    """A seeded network after a few steps on random patches.

    A network straight from its initialisation amplifies rounding, has batch-norm statistics of nothing, and gives all
    classes the same scores: how many labels differ between two ways to evaluate it says nothing about real ones.
    """
    torch.manual_seed(_SEED)
    rng = np.random.default_rng(_SEED)
    network = build(arguments_of(size)).train()
    optimizer = torch.optim.Adam(network.parameters(), _LEARNING_RATE)
    for _ in range(_STEPS):
        start = rng.integers(np.subtract(volume.shape, _PATCH_ZYX) + 1)
        patch = tuple(slice(first, first + length) for first, length in zip(start, _PATCH_ZYX, strict=True))
        scores = network(torch.from_numpy(volume[patch][None, None].copy()))
        loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels[patch][None].astype(np.int64)))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return network.eval()
