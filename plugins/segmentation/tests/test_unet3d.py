"""UNet3D gives what InnerEye's gives for InnerEye's weights, and says truly which patches it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from innereye_segmentation.checkpoints.reading import load_weights
from innereye_segmentation.networks import UNet3D


def golden_network(checkpoint: Path) -> UNet3D:
    network = UNet3D(input_channels=1, feature_channels=4, classes=4, downsampling_paths=2)
    load_weights(network, checkpoint)
    return network.eval()


@pytest.mark.parametrize(
    ("checkpoint", "outputs"),
    [
        ("unet3d_a.ckpt", "unet3d_a.npz"),
        ("unet3d_a_ens1.ckpt", "unet3d_a_ens1.npz"),
        ("3_checkpoint.pth.tar", "unet3d_a.npz"),
    ],
)
def test_scores_and_posteriors_are_those_of_the_original(golden: Path, checkpoint: str, outputs: str) -> None:
    network = golden_network(golden / "unet3d" / checkpoint)
    arrays = np.load(golden / "unet3d" / outputs)
    inputs = [name for name in arrays.files if name.startswith("input_")]
    assert inputs
    for name in inputs:
        number = name.removeprefix("input_")
        with torch.inference_mode():
            scores = network(torch.from_numpy(arrays[name]))
        np.testing.assert_allclose(scores, arrays[f"logits_{number}"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(scores.softmax(dim=1), arrays[f"posteriors_{number}"], rtol=0, atol=1e-5)


def test_state_dict_has_the_names_shapes_and_order_of_the_original(golden: Path) -> None:
    described = json.loads((golden / "unet3d" / "checkpoints.json").read_text())["unet3d_a"]
    expected = [(key.removeprefix("model."), shape) for key, (_, shape) in described["state_dict"].items()]
    network = UNet3D(input_channels=1, feature_channels=4, classes=4, downsampling_paths=2)
    assert [(key, list(tensor.shape)) for key, tensor in network.state_dict().items()] == expected
    assert list(network.size_multiple_zyx) == described["crop_size_multiple_of"]
    assert list(network.minimum_size_zyx) == described["crop_size_minimum"]


@pytest.mark.parametrize("kernel_size", [1, 3, (1, 3, 5)])
@pytest.mark.parametrize("dilation", [1, (1, 2, 3)])
@pytest.mark.parametrize("factor", [1, 2, 3, (1, 2, 2), (4, 1, 3)])
def test_the_output_has_the_size_of_the_input_for_every_multiple_from_the_minimum_on(
    factor: Any, dilation: Any, kernel_size: Any
) -> None:
    network = UNet3D(1, 1, 2, kernel_size, 2, factor, dilation).eval()
    for times in (1, 2):
        size = [times * multiple for multiple in network.size_multiple_zyx]
        with torch.inference_mode():
            assert list(network(torch.zeros(1, 1, *size)).shape) == [1, 2, *size]
    assert network.minimum_size_zyx == network.size_multiple_zyx


def test_the_size_multiple_is_the_factor_to_the_power_of_the_levels() -> None:
    assert UNet3D(1, 1, 2, downsampling_paths=3, downsampling_factor=(1, 2, 3)).size_multiple_zyx == (1, 8, 27)


def test_a_size_that_is_no_multiple_does_not_pass_silently() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"):
        UNet3D(1, 1, 2, downsampling_paths=1).eval()(torch.zeros(1, 1, 3, 4, 4))


def test_every_weight_can_learn() -> None:
    network = UNet3D(1, 2, 2, downsampling_paths=1)
    network(torch.randn(2, 1, 8, 8, 8)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_channels": 0}, "input_channels 0: must be an integer of at least 1"),
        ({"feature_channels": "16"}, "feature_channels '16': must be an integer"),
        ({"classes": True}, "classes True: must be an integer"),
        ({"downsampling_paths": 0}, "downsampling_paths 0"),
        ({"kernel_size": 2}, "kernel_size 2: an even kernel changes the size"),
        ({"kernel_size": [3, 3]}, "must be an integer or three of them"),
        ({"downsampling_factor": [2, 2, 0]}, "downsampling_factor 0"),
        ({"downsampling_dilation": 1.5}, "downsampling_dilation 1.5: must be an integer"),
        ({"padding": "edge"}, "pads with zeros whatever its mode is"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet3D(**{"input_channels": 1, "feature_channels": 1, "classes": 2, **arguments})
