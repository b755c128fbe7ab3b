"""Networks with InnerEye's own weights give what InnerEye gave, and their state dicts are InnerEye's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from innereye_core.config import CTWindow, InferenceConfig, ModelConfig, NetworkConfig, Structure
from innereye_segmentation.checkpoints.reading import load_weights
from innereye_segmentation.networks.factory import build_network
from innereye_segmentation.runtime import load_network

DESCRIBED = ("unet3d_a", "unet3d_a_ens1", "basic2")

CHECKPOINTS = [
    ("unet3d_a", "unet3d_a.ckpt"),
    ("unet3d_a", "3_checkpoint.pth.tar"),
    ("unet3d_a_ens1", "unet3d_a_ens1.ckpt"),
    ("basic2", "basic2.ckpt"),
]
"""What describes the network and has its outputs, and the file with its weights."""


def description(golden: Path, name: str) -> dict[str, Any]:
    described: dict[str, Any] = json.loads((golden / "unet3d" / "checkpoints.json").read_text())[name]
    return described


def network_config(described: dict[str, Any]) -> NetworkConfig:
    """What a user writes for a model whose settings in InnerEye were these."""
    settings = described["config"]
    features = settings["feature_channels"]
    arguments = {
        "input_channels": len(settings["image_channels"]),
        "classes": len(settings["ground_truth_ids"]) + 1,
        "kernel_size": settings["kernel_size"],
    }
    match settings["architecture"]:
        case "UNet3D":
            paths = settings["num_downsampling_paths"]
            arguments |= {"feature_channels": features[0], "downsampling_paths": paths}
        case "Basic":
            arguments |= {"feature_channels": features}
    return NetworkConfig(f"innereye_segmentation.networks:{settings['architecture']}", arguments)


def golden_network(golden: Path, name: str, checkpoint: str) -> nn.Module:
    network = build_network(network_config(description(golden, name))).eval().requires_grad_(False)
    load_weights(network, golden / "unet3d" / checkpoint)
    return network


def cases(golden: Path, name: str) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Every recorded input, with its logits and posteriors."""
    arrays = np.load(golden / "unet3d" / f"{name}.npz")
    numbers = [key.removeprefix("input_") for key in arrays.files if key.startswith("input_")]
    assert numbers
    tensor = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return [(tensor[f"input_{n}"], tensor[f"logits_{n}"], tensor[f"posteriors_{n}"]) for n in numbers]


@pytest.mark.parametrize(("name", "checkpoint"), CHECKPOINTS)
def test_scores_and_posteriors_are_those_of_the_original(golden: Path, name: str, checkpoint: str) -> None:
    network = golden_network(golden, name, checkpoint)
    for image, logits, posteriors in cases(golden, name):
        scores = network(image)
        torch.testing.assert_close(scores, logits, rtol=0, atol=1e-4)
        torch.testing.assert_close(scores.softmax(dim=1), posteriors, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", DESCRIBED)
def test_state_dict_has_the_names_shapes_types_and_order_of_the_original(golden: Path, name: str) -> None:
    described = description(golden, name)
    expected = [(key.removeprefix("model."), kind, shape) for key, (kind, shape) in described["state_dict"].items()]
    state = build_network(network_config(described)).state_dict()
    assert [(key, str(tensor.dtype), list(tensor.shape)) for key, tensor in state.items()] == expected


@pytest.mark.parametrize("name", DESCRIBED)
def test_patch_sizes_are_those_of_the_original(golden: Path, name: str) -> None:
    described = description(golden, name)
    network = build_network(network_config(described)).eval()
    image = torch.zeros(1, len(described["config"]["image_channels"]), *described["config"]["test_crop_size"])
    assert network.size_multiple_zyx == tuple(described["crop_size_multiple_of"] or (1, 1, 1))
    assert network.minimum_size_zyx == tuple(described["crop_size_minimum"])
    with torch.inference_mode():
        assert [*network(image).shape[2:]] == described["config"]["test_output_size"]


@pytest.mark.parametrize(("name", "checkpoint"), CHECKPOINTS)
def test_the_runtime_gives_them_too_whether_it_folds_or_not(golden: Path, name: str, checkpoint: str) -> None:
    described = description(golden, name)
    eager = golden_network(golden, name, checkpoint)
    images = cases(golden, name)
    z, y, x = images[0][0].shape[2:]
    config = ModelConfig(
        schema_version=1,
        model_name="Golden",
        structures=tuple(Structure(structure) for structure in described["config"]["ground_truth_ids"]),
        image_channels=tuple(described["config"]["image_channels"]),
        network=network_config(described),
        inference=InferenceConfig((z, y, x)),
        normalization=CTWindow("ct_window", level=50, window=100),
    )
    network = load_network(config, golden / "unet3d" / checkpoint, None, "cpu")
    for image, _, posteriors in images:
        scores = network.evaluate(image.numpy())
        torch.testing.assert_close(scores, eager(image), rtol=0, atol=1e-5)
        torch.testing.assert_close(scores.softmax(dim=1), posteriors, rtol=0, atol=1e-5)
