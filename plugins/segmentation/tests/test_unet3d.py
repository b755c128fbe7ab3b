"""UNet3D does with every option what InnerEye's does, and says truly which patches it takes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from innereye_core.config import NumpyPadding
from innereye_segmentation.folding import fold_batch_normalization
from innereye_segmentation.networks import UNet3D

ZYX = tuple[int, int, int]


def as_trained(network: UNet3D, seed: int = 0) -> UNet3D:
    """The network with statistics that are not those of a new one, ready to be evaluated."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.get_buffer("running_mean"), std=0.2)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
    return network.eval().requires_grad_(False)


def per_axis(*values: int) -> st.SearchStrategy[int | list[int]]:
    """One number for all axes, or a list (z, y, x)."""
    one = st.sampled_from(values)
    return one | st.lists(one, min_size=3, max_size=3)


def options(kernels: Sequence[int] = (1, 3, 5), factors: Sequence[int] = (1, 2, 3, 4)) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {
            "input_channels": st.integers(1, 2),
            "feature_channels": st.integers(1, 2),
            "classes": st.integers(1, 3),
            "kernel_size": per_axis(*kernels),
            "downsampling_paths": st.integers(0, 2),
            "downsampling_factor": per_axis(*factors),
            "downsampling_dilation": per_axis(1, 2, 3),
        }
    )


def image_for(network: UNet3D, options: Mapping[str, Any], times: Sequence[int] = (1, 1, 1)) -> Tensor:
    """Noise of so many times the size multiple along each axis."""
    size_zyx = [multiple * n for multiple, n in zip(network.size_multiple_zyx, times, strict=True)]
    assume(torch.Size(size_zyx).numel() <= 20_000)  # to be fast
    return torch.randn(2, options["input_channels"], *size_zyx, generator=torch.Generator().manual_seed(3))


# --- the same as InnerEye's -------------------------------------------------------------------------------------------


def scores_by_the_book(weights: Mapping[str, Tensor], image: Tensor, levels: int, factor: ZYX, dilation: ZYX) -> Tensor:
    """InnerEye's U-Net from its description, as functions of a state dict: shares nothing with the code under test.

    InnerEye pads each side of an axis with (kernel − 1) // 2 + dilation − 1 zeros, or none for a kernel of 1, and cuts
    factor − 1 voxels off each side of what a transposed convolution with a kernel of twice the factor gives.
    """

    def convolve(name: str, x: Tensor, stride: ZYX = (1, 1, 1), dilation: ZYX = (1, 1, 1)) -> Tensor:
        weight = weights[f"{name}.conv1.weight"]
        widths = [0 if k == 1 else (k - 1) // 2 + d - 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
        padded = functional.pad(x, [width for width in reversed(widths) for _side in range(2)])
        return functional.conv3d(padded, weight, stride=stride, dilation=dilation)

    def normalize(name: str, x: Tensor) -> Tensor:
        parts = (weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        mean, variance, scale, shift = (part.view(1, -1, 1, 1, 1) for part in parts)
        return functional.relu((x - mean) / (variance + 1e-5).sqrt() * scale + shift)

    def layer(name: str, x: Tensor, stride: ZYX = (1, 1, 1), dilation: ZYX = (1, 1, 1)) -> Tensor:
        return normalize(f"{name}.bn1", convolve(name, x, stride, dilation))

    first = layer("_layers.0.block1", image)
    features = [first + layer("_layers.0.block2", first)]
    for level in range(1, levels + 1):
        halved = layer(f"_layers.{level}.block1", features[-1], stride=factor)
        features.append(halved + layer(f"_layers.{level}.block2", halved, dilation=dilation))
    x = features.pop()
    for number in range(levels + 1, 3 * levels + 1, 2):
        up, merge = f"_layers.{number}.upsample_block", f"_layers.{number + 1}"
        kernel_and_bias = (weights[f"{up}.0.weight"], weights[f"{up}.0.bias"])
        whole = functional.conv_transpose3d(x, *kernel_and_bias, stride=factor)
        centre = [slice(f - 1, size - (f - 1)) for f, size in zip(factor, whole.shape[2:], strict=True)]
        x = normalize(f"{up}.1", whole[:, :, *centre])
        x = convolve(f"{merge}.conv1", x) + convolve(f"{merge}.conv2", features.pop())
        x = normalize(f"{merge}.activation_block.0", x)
        x = x + layer(f"{merge}.block2", x)
    return functional.conv3d(x, weights["output_layer.weight"], weights["output_layer.bias"])


def triple(value: int | Sequence[int]) -> ZYX:
    z, y, x = [value] * 3 if isinstance(value, int) else value
    return z, y, x


@settings(max_examples=40, deadline=None)
@given(options=options(kernels=(1, 3), factors=(1, 2)), times=st.tuples(*[st.integers(1, 3)] * 3))
def test_scores_are_those_of_an_implementation_from_the_description(options: dict[str, Any], times: ZYX) -> None:
    network = as_trained(UNet3D(**options))
    image = image_for(network, options, times)
    factor, dilation = triple(options["downsampling_factor"]), triple(options["downsampling_dilation"])
    expected = scores_by_the_book(network.state_dict(), image, options["downsampling_paths"], factor, dilation)
    torch.testing.assert_close(network(image), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "factor", "dilation"),
    [((5, 5, 5), (2, 2, 2), (1, 1, 1)), ((1, 3, 5), (1, 2, 2), (3, 2, 1)), ((3, 1, 3), (2, 1, 2), (2, 2, 2))],
)
def test_scores_of_large_and_anisotropic_kernels_are_too(kernel: ZYX, factor: ZYX, dilation: ZYX) -> None:
    network = as_trained(UNet3D(1, 2, 3, kernel, 2, factor, dilation))
    image = torch.randn(1, 1, 4, 8, 12)
    expected = scores_by_the_book(network.state_dict(), image, 2, factor, dilation)
    torch.testing.assert_close(network(image), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
def test_up_sampling_is_that_of_the_original_and_more_at_the_end_where_that_is_too_short(factor: int) -> None:
    network = as_trained(UNet3D(1, 2, 2, downsampling_paths=1, downsampling_factor=factor))
    state = network.state_dict()
    x = torch.randn(1, 4, 3, 2, 4)
    weight, bias = (state[f"_layers.2.upsample_block.0.{name}"] for name in ("weight", "bias"))
    expected = functional.conv_transpose3d(x, weight, bias, stride=factor, padding=factor - 1)
    upsampled = network.get_submodule("_layers.2.upsample_block.0")(x)
    assert [*upsampled.shape[2:]] == [factor * size for size in x.shape[2:]]
    z, y, x_ = expected.shape[2:]
    torch.testing.assert_close(upsampled[:, :, :z, :y, :x_], expected)


def test_state_dict_has_the_names_of_the_original() -> None:
    state = UNet3D(1, 1, 2, downsampling_paths=1).state_dict()
    assert [key for key in state if key.endswith("weight")] == [
        "_layers.0.block1.conv1.weight",
        "_layers.0.block1.bn1.weight",
        "_layers.0.block2.conv1.weight",
        "_layers.0.block2.bn1.weight",
        "_layers.1.block1.conv1.weight",
        "_layers.1.block1.bn1.weight",
        "_layers.1.block2.conv1.weight",
        "_layers.1.block2.bn1.weight",
        "_layers.2.upsample_block.0.weight",
        "_layers.2.upsample_block.1.weight",
        "_layers.3.conv1.conv1.weight",
        "_layers.3.conv2.conv1.weight",
        "_layers.3.activation_block.0.weight",
        "_layers.3.block2.conv1.weight",
        "_layers.3.block2.bn1.weight",
        "output_layer.weight",
    ]


@settings(max_examples=20, deadline=None)
@given(options=options(), padding=st.sampled_from(["zero", "edge", "wrap"]))
def test_shapes_of_weights_follow_from_features_kernel_factor_and_levels_alone(
    options: dict[str, Any], padding: str
) -> None:
    state = UNet3D(**options, padding=padding).state_dict()
    undilated = UNet3D(**{**options, "downsampling_dilation": 1}).state_dict()
    assert {key: tensor.shape for key, tensor in state.items()} == {
        key: tensor.shape for key, tensor in undilated.items()
    }


# --- padding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [name for name in get_args(NumpyPadding) if name != "none"])
def test_every_padding_mode_pads_with_zeros_as_in_the_original(padding: str) -> None:
    zero = as_trained(UNet3D(1, 2, 2, downsampling_paths=1))
    other = UNet3D(1, 2, 2, downsampling_paths=1, padding=padding).eval()
    other.load_state_dict(zero.state_dict())
    image = torch.randn(1, 1, 4, 4, 6)
    assert torch.equal(other(image), zero(image))


def test_a_padding_mode_that_says_otherwise_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        UNet3D(1, 1, 2, downsampling_paths=1, padding="constant")
        assert not caplog.messages
        UNet3D(1, 1, 2, downsampling_paths=1, padding="edge")
    assert caplog.messages == ["padding 'edge': as in InnerEye, this network pads with zeros whatever is named here"]


def test_no_padding_is_possible_with_a_kernel_of_1() -> None:
    network = UNet3D(1, 1, 2, kernel_size=1, downsampling_paths=1, padding="none").eval()
    assert network(torch.zeros(1, 1, 2, 4, 6)).shape == (1, 2, 2, 4, 6)


@settings(max_examples=10, deadline=None)
@given(options=options(kernels=(1,), factors=(1,)))
def test_a_constant_image_stays_constant_where_nothing_is_padded(options: dict[str, Any]) -> None:
    network = as_trained(UNet3D(**options))
    scores = network(torch.full((1, options["input_channels"], 3, 4, 5), 0.7))
    torch.testing.assert_close(scores, scores[:, :, :1, :1, :1].expand_as(scores))


# --- patches ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(options=options(), times=st.tuples(*[st.integers(1, 2)] * 3))
def test_the_output_has_the_size_of_the_input_for_every_multiple_from_the_minimum_on(
    options: dict[str, Any], times: ZYX
) -> None:
    network = as_trained(UNet3D(**options))
    image = image_for(network, options, times)
    scores = network(image)
    assert scores.shape == (2, options["classes"], *image.shape[2:])
    assert scores.isfinite().all()
    assert network.minimum_size_zyx == network.size_multiple_zyx


@settings(max_examples=40, deadline=None)
@given(options=options(), axis=st.integers(0, 2), data=st.data())
def test_a_size_that_is_no_multiple_is_refused(options: dict[str, Any], axis: int, data: st.DataObject) -> None:
    network = UNet3D(**options)
    multiple = network.size_multiple_zyx[axis]
    assume(multiple > 1)
    size_zyx = [*network.size_multiple_zyx]
    size_zyx[axis] = data.draw(st.integers(1, 2 * multiple).filter(lambda size: size % multiple > 0))
    image = torch.zeros(1, options["input_channels"], *size_zyx)
    with pytest.raises(ValueError, match=r"needs multiples of"):
        network(image)


def test_the_minimum_is_no_larger_than_it_must_be() -> None:
    network = as_trained(UNet3D(1, 1, 2, downsampling_paths=2))
    assert network.minimum_size_zyx == (4, 4, 4)
    network.size_multiple_zyx = (1, 1, 1)  # so that nothing is refused
    assert network(torch.zeros(1, 1, 4, 4, 1)).shape == (1, 2, 4, 4, 4)
    for size in (2, 3):
        with pytest.raises(RuntimeError, match="must match the size"):
            network(torch.zeros(1, 1, 4, 4, size))


def test_the_size_multiple_is_the_factor_to_the_power_of_the_levels() -> None:
    assert UNet3D(1, 1, 2, downsampling_paths=3, downsampling_factor=(1, 2, 3)).size_multiple_zyx == (1, 8, 27)
    assert UNet3D(1, 1, 2, downsampling_paths=0).size_multiple_zyx == (1, 1, 1)


# --- evaluation and training ------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(options=options())
def test_the_same_image_gives_the_same_scores_alone_and_again(options: dict[str, Any]) -> None:
    network = as_trained(UNet3D(**options))
    image = image_for(network, options)
    scores = network(image)
    assert torch.equal(network(image), scores)
    torch.testing.assert_close(network(image[1:]), scores[1:])


@settings(max_examples=20, deadline=None)
@given(options=options())
def test_every_normalisation_is_folded_within_rounding(options: dict[str, Any]) -> None:
    eager = as_trained(UNet3D(**options))
    image = image_for(eager, options)
    folded = copy.deepcopy(eager)
    normalizations = sum(isinstance(module, nn.BatchNorm3d) for module in eager.modules())
    with torch.inference_mode():
        scores = eager(image)
        assert fold_batch_normalization(folded, image, scores, largest_change=1e-4) == normalizations
        for layout in (torch.contiguous_format, torch.channels_last_3d):
            found = folded(image.contiguous(memory_format=layout))
            torch.testing.assert_close(found, scores, rtol=1e-5, atol=1e-5)


def test_every_weight_can_learn() -> None:
    network = UNet3D(1, 2, 2, downsampling_paths=1)
    network(torch.randn(2, 1, 8, 8, 8)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_channels": 0}, "input_channels 0: must be an integer of at least 1"),
        ({"feature_channels": "16"}, "feature_channels '16': must be an integer"),
        ({"feature_channels": [16]}, r"feature_channels \[16\]: must be an integer"),
        ({"classes": True}, "classes True: must be an integer"),
        ({"downsampling_paths": -1}, "downsampling_paths -1: must be an integer of at least 0"),
        ({"kernel_size": 2}, "kernel_size 2: an even kernel changes the size"),
        ({"kernel_size": [3, 4, 3]}, r"kernel_size \[3, 4, 3\]: an even kernel changes the size"),
        ({"kernel_size": [3, 3]}, r"kernel_size \[3, 3\]: must be an integer or three of them"),
        ({"downsampling_factor": [2, 2, 0]}, "downsampling_factor 0: must be an integer of at least 1"),
        ({"downsampling_dilation": 1.5}, "downsampling_dilation 1.5: must be an integer"),
        ({"padding": "replicate"}, "padding 'replicate': must be one of edge, zero"),
        ({"padding": "none"}, r"padding 'none' with a kernel of \[3, 3, 3\] \(z, y, x\): .* use 'zero'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet3D(**{"input_channels": 1, "feature_channels": 1, "classes": 2, **arguments})
