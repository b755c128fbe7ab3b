"""Basic is InnerEye's: unpadded convolutions that score the centre of a patch, wherever the patch is cut."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from innereye_core.config import InferenceConfig, ModelConfig, NetworkConfig
from innereye_core.errors import InputError
from innereye_core.host import Host
from innereye_core.model import ModelFiles, NetworkGeometry, SizeZYX
from innereye_imaging.pipeline import Segmentation, prepare_study, segment
from innereye_segmentation.folding import fold_batch_normalization
from innereye_segmentation.networks import Basic
from innereye_segmentation.providers import TorchRuntime

EQUAL = [2] * 8
GROWING = [2, 3, 4, 4, 4, 4, 5, 5]
"""Two residuals go through a convolution: 3 → 4 and 4 → 5."""
BROADCAST = [2, 3, 1, 4, 5, 4, 1, 2]
"""The residual has one feature, which is added to all; a block that is wider inside; the first again."""


def as_trained(network: Basic, seed: int = 0) -> Basic:
    """The network with statistics that are not those of a new one, ready to be evaluated."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.get_buffer("running_mean"), std=0.2)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
    return network.eval().requires_grad_(False)


# --- the same as InnerEye's -------------------------------------------------------------------------------------------


def scores_by_the_book(weights: Mapping[str, Tensor], image: Tensor) -> Tensor:
    """InnerEye's Basic network from its description, as functions of a state dict."""

    def layer(name: str, x: Tensor, dilation: int = 1) -> Tensor:
        x = functional.conv3d(x, weights[f"{name}.conv1.weight"], weights[f"{name}.conv1.bias"], dilation=dilation)
        parts = (weights[f"{name}.bn1.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        mean, variance, scale, shift = (part.view(1, -1, 1, 1, 1) for part in parts)
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    x = layer("_layers.0", image).relu()
    x = layer("_layers.1", x).relu()
    for block in ("_layers.2", "_layers.3", "_layers.4"):
        residual = layer(f"{block}.layers.1", layer(f"{block}.layers.0", x, dilation=2).relu(), dilation=2)
        for axis in (2, 3, 4):
            margin = (x.shape[axis] - residual.shape[axis]) // 2
            x = x.narrow(axis, margin, residual.shape[axis])
        x = (residual + (layer(f"{block}.conv", x) if f"{block}.conv.conv1.weight" in weights else x)).relu()
    return functional.conv3d(x, weights["_layers.5.weight"], weights["_layers.5.bias"])


@pytest.mark.parametrize("features", [EQUAL, GROWING, BROADCAST])
@pytest.mark.parametrize(("kernel", "size_zyx"), [(3, (29, 32, 31)), (2, (15, 16, 18)), ([1, 3, 2], (1, 30, 16))])
def test_scores_are_those_of_an_implementation_from_the_description(
    features: list[int], kernel: int | list[int], size_zyx: SizeZYX
) -> None:
    network = as_trained(Basic(2, features, 3, kernel))
    image = torch.randn(2, 2, *size_zyx)
    expected = scores_by_the_book(network.state_dict(), image)
    torch.testing.assert_close(network(image), expected, rtol=1e-5, atol=1e-5)


def test_state_dict_has_a_convolution_of_the_residual_only_where_the_number_of_features_changes() -> None:
    equal, growing = Basic(1, EQUAL, 2).state_dict(), Basic(1, GROWING, 2).state_dict()
    added = {key: list(tensor.shape) for key, tensor in growing.items() if key not in equal}
    parts = ("weight", "bias", "running_mean", "running_var")
    assert added == {
        "_layers.2.conv.conv1.weight": [4, 3, 1, 1, 1],
        "_layers.2.conv.conv1.bias": [4],
        **{f"_layers.2.conv.bn1.{part}": [4] for part in parts},
        "_layers.2.conv.bn1.num_batches_tracked": [],
        "_layers.4.conv.conv1.weight": [5, 4, 1, 1, 1],
        "_layers.4.conv.conv1.bias": [5],
        **{f"_layers.4.conv.bn1.{part}": [5] for part in parts},
        "_layers.4.conv.bn1.num_batches_tracked": [],
    }
    assert [key for key in growing if key.startswith("_layers.2.")].index("_layers.2.conv.conv1.weight") == 14


# --- patches ----------------------------------------------------------------------------------------------------------


def test_with_a_kernel_of_3_the_output_is_28_voxels_smaller() -> None:
    network = Basic(1, EQUAL, 3).eval()
    assert network.size_multiple_zyx == (1, 1, 1)
    assert network.minimum_size_zyx == (29, 29, 29)
    with torch.inference_mode():
        assert network(torch.zeros(2, 1, 29, 30, 33)).shape == (2, 3, 1, 2, 5)


@settings(max_examples=15, deadline=None)
@given(kernel=st.lists(st.integers(1, 3), min_size=3, max_size=3), axis=st.integers(0, 2))
def test_the_minimum_gives_one_voxel_and_one_less_gives_an_error(kernel: list[int], axis: int) -> None:
    network = Basic(1, [1] * 8, 2, kernel).eval()
    size_zyx = [*network.minimum_size_zyx]
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, *size_zyx)).shape == (1, 2, 1, 1, 1)
        size_zyx[axis] -= 1
        with pytest.raises(RuntimeError):
            network(torch.zeros(1, 1, *size_zyx))


@settings(max_examples=10, deadline=None)
@given(shift=st.tuples(*[st.integers(0, 4)] * 3))
def test_scores_do_not_depend_on_where_a_patch_is_cut(shift: SizeZYX) -> None:
    network = as_trained(Basic(1, GROWING, 2))
    image = torch.randn(1, 1, 34, 34, 34, generator=torch.Generator().manual_seed(1))
    z, y, x = shift
    part = network(image[:, :, z : z + 30, y : y + 30, x : x + 30])
    torch.testing.assert_close(part, network(image)[:, :, z : z + 2, y : y + 2, x : x + 2])


def test_a_constant_image_stays_constant() -> None:
    scores = as_trained(Basic(1, GROWING, 2))(torch.full((1, 1, 32, 31, 30), 0.7))
    torch.testing.assert_close(scores, scores[:, :, :1, :1, :1].expand_as(scores))


# --- evaluation and training ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [EQUAL, GROWING, BROADCAST])
def test_every_normalisation_is_folded_within_rounding(features: list[int]) -> None:
    eager = as_trained(Basic(1, features, 2))
    folded = copy.deepcopy(eager)
    image = torch.randn(1, 1, 30, 31, 32)
    normalizations = sum(isinstance(module, nn.BatchNorm3d) for module in eager.modules())
    with torch.inference_mode():
        scores = eager(image)
        assert fold_batch_normalization(folded, image, scores) == normalizations
        for layout in (torch.contiguous_format, torch.channels_last_3d):
            found = folded(image.contiguous(memory_format=layout))
            torch.testing.assert_close(found, scores, rtol=0, atol=1e-5)


def test_every_weight_can_learn() -> None:
    torch.manual_seed(0)
    network = Basic(1, GROWING, 2)
    network(torch.randn(2, 1, 32, 32, 32)).square().mean().backward()
    weights = [parameter for name, parameter in network.named_parameters() if "conv1.bias" not in name]
    assert all(weight.grad is not None and weight.grad.any() for weight in weights)  # the norm cancels such a bias


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_channels": 0}, "input_channels 0: must be an integer of at least 1"),
        ({"classes": 1.0}, r"classes 1\.0: must be an integer of at least 1"),
        ({"kernel_size": 0}, "kernel_size 0: must be an integer of at least 1"),
        ({"feature_channels": 30}, "feature_channels 30: must be a list of eight integers"),
        ({"feature_channels": [3] * 7}, r"feature_channels \[3, 3, 3, 3, 3, 3, 3\]: must be a list of eight"),
        ({"feature_channels": [3] * 9}, r"must be a list of eight integers, one for each layer"),
        ({"feature_channels": [3] * 7 + [0]}, "feature_channels 0: must be an integer of at least 1"),
        (
            {"feature_channels": [2, 3, 3, 4, 4, 4, 4, 4]},
            "feature_channels: a residual block goes from 3 features over 3 to 4; make the one in the middle 4",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Basic(**{"input_channels": 1, "feature_channels": EQUAL, "classes": 2, **arguments})


# --- from image to segmentation ---------------------------------------------------------------------------------------

ARGUMENTS: dict[str, Any] = {"input_channels": 1, "feature_channels": GROWING, "classes": 3}


@pytest.fixture
def trained() -> Basic:
    return as_trained(Basic(**ARGUMENTS))


@pytest.fixture
def score(
    trained: Basic,
    tmp_path: Path,
    providers: Host,
    tiny_config: Callable[..., ModelConfig],
    write_image: Callable[..., Path],
) -> Callable[..., tuple[NetworkGeometry, Segmentation]]:
    """Segments voxels (z, y, x) with the trained network, through its checkpoint and the torch runtime."""
    checkpoint = tmp_path / "1_checkpoint.pth.tar"
    torch.save({"epoch": 1, "state_dict": trained.state_dict()}, checkpoint)

    def run(voxels: np.ndarray[Any, Any], inference: InferenceConfig) -> tuple[NetworkGeometry, Segmentation]:
        network = NetworkConfig("innereye_segmentation.networks:Basic", ARGUMENTS)
        config = dataclasses.replace(tiny_config(network, structures=("a", "b")), inference=inference)
        loaded = TorchRuntime().load(ModelFiles(config, (checkpoint,)), "cpu")
        study = prepare_study([write_image(tmp_path / "ct.nii.gz", voxels)], config, providers)
        return loaded[0].geometry, segment(study, loaded, config, posteriors=True)

    return run


def random_voxels(*size_zyx: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 100, size_zyx).astype(np.int16)


@pytest.mark.parametrize("stitching", ["average", "crop", "gaussian"])
@pytest.mark.parametrize(
    ("size_zyx", "padding", "stride_zyx"),
    [((44, 48, 52), "edge", None), ((44, 46, 48), "edge", (12, 14, 16)), ((41, 46, 38), "zero", None)],
    ids=["large", "overlapping", "smaller-than-a-patch"],
)
def test_a_stitched_segmentation_is_that_of_the_whole_image_at_once(
    score: Callable[..., tuple[NetworkGeometry, Segmentation]],
    trained: Basic,
    size_zyx: SizeZYX,
    padding: Literal["edge", "zero"],
    stride_zyx: SizeZYX | None,
    stitching: Literal["average", "crop", "gaussian"],
) -> None:
    voxels = random_voxels(*size_zyx)
    geometry, found = score(voxels, InferenceConfig((44, 46, 48), stride_zyx, padding=padding, stitching=stitching))
    assert geometry == NetworkGeometry((1, 1, 1), (29, 29, 29), (16, 18, 20))
    normalized = voxels.astype(np.float32) / 50 - 1
    whole = np.pad(normalized, 14, mode="constant" if padding == "zero" else padding)
    expected = trained(torch.from_numpy(whole)[None, None]).softmax(dim=1)[0].numpy()
    assert found.posteriors is not None
    np.testing.assert_allclose(found.posteriors, expected, rtol=0, atol=1e-5)
    second, first = np.sort(expected, axis=0)[-2:]
    clear = first - second > 1e-4
    assert np.array_equal(found.labels[clear], expected.argmax(axis=0)[clear])


def test_an_image_below_the_minimum_is_refused(score: Callable[..., tuple[NetworkGeometry, Segmentation]]) -> None:
    with pytest.raises(InputError, match=r"28 × 40 × 40 voxels .* needs at least 29 × 29 × 29"):
        score(random_voxels(28, 40, 40), InferenceConfig((40, 40, 40), stitching="crop"))


def test_a_crop_size_below_the_minimum_is_refused(score: Callable[..., tuple[NetworkGeometry, Segmentation]]) -> None:
    with pytest.raises(InputError, match=r"inference.crop_size_zyx \[28, 40, 40\]: must be at least \[29, 29, 29\]"):
        score(random_voxels(40, 40, 40), InferenceConfig((28, 40, 40)))
