"""Batch normalisation is folded where the scores stay the same, and nowhere else."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from innereye_segmentation.checkpoints.reading import load_weights
from innereye_segmentation.folding import fold_batch_normalization
from innereye_segmentation.networks import UNet3D


def trained(network: nn.Module) -> nn.Module:
    """The network with statistics as if it had been trained."""
    torch.manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            nn.init.normal_(module.get_buffer("running_mean"))
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2.0)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 2.0)
                nn.init.normal_(module.bias)
    return network.eval()


def fold(network: nn.Module, channels: int = 2) -> tuple[int, float]:
    """How many normalisations are folded, and by how much the scores for another example change."""
    torch.manual_seed(3)
    example, other = torch.randn(2, 1, channels, 4, 4, 4)
    with torch.inference_mode():
        before = network(other)
        folded = fold_batch_normalization(network, example, network(example))
        return folded, float((network(other) - before).abs().max())


def count(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm3d) for module in network.modules())


def test_every_normalisation_of_the_unet_is_folded(tiny_unet: UNet3D) -> None:
    folded, difference = fold(tiny_unet, channels=1)
    assert folded == 7
    assert count(tiny_unet) == 0
    assert difference < 1e-5


@pytest.mark.parametrize("name", ["unet3d_a", "unet3d_a_ens1"])
def test_labels_of_the_original_stay(golden: Path, name: str) -> None:
    network, patch, eager = golden_case(golden, name)
    with torch.inference_mode():
        assert fold_batch_normalization(network, patch, eager, largest_change=1e-4) == 12
        folded = network(patch)
    assert torch.equal(folded.argmax(dim=1), eager.argmax(dim=1))
    np.testing.assert_allclose(folded, np.load(golden / "unet3d" / f"{name}.npz")["logits_0"], rtol=0, atol=1e-4)


def test_a_network_that_amplifies_rounding_is_left_alone(golden: Path) -> None:
    network, patch, eager = golden_case(golden, "unet3d_a")
    with torch.inference_mode():
        assert fold_batch_normalization(network, patch, eager) == 0
        assert torch.equal(network(patch), eager)
    assert count(network) == 12


def golden_case(golden: Path, name: str) -> tuple[UNet3D, Tensor, Tensor]:
    """A network of the original's, which was never really trained; a patch; and its scores."""
    network = UNet3D(input_channels=1, feature_channels=4, classes=4, downsampling_paths=2)
    load_weights(network, golden / "unet3d" / f"{name}.ckpt")
    patch = torch.from_numpy(np.load(golden / "unet3d" / f"{name}.npz")["input_0"])
    with torch.inference_mode():
        return network.eval(), patch, network.eval()(patch)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv3d(2, 3, 3, padding=1),
        nn.Conv3d(2, 3, 3, padding=1, bias=False),
        nn.Conv3d(2, 4, 3, padding=1, groups=2),
        nn.Conv3d(2, 3, 3, padding=1, padding_mode="replicate"),
        nn.ConvTranspose3d(2, 3, 4, stride=2, padding=1),
        nn.ConvTranspose3d(2, 3, 4, stride=2, padding=1, bias=False),
    ],
    ids=str,
)
@pytest.mark.parametrize("affine", [True, False])
def test_a_convolution_takes_over_the_normalisation_after_it(convolution: Any, affine: bool) -> None:
    network = trained(
        nn.Sequential(copy.deepcopy(convolution), nn.BatchNorm3d(convolution.out_channels, affine=affine), nn.ReLU())
    )
    folded, difference = fold(network)
    assert folded == 1
    assert count(network) == 0
    assert difference < 1e-5


def test_in_two_dimensions_too() -> None:
    network = trained(nn.Sequential(nn.Flatten(2, 3), nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)))
    assert fold(network)[0] == 1


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(2, 2, 1)
        self.second = nn.Conv3d(2, 2, 1)
        self.norm = nn.BatchNorm3d(2)


class SumOfBranches(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y += self.second(x)
        out: Tensor = self.norm(y)
        return out


def test_convolutions_whose_sum_is_normalised_share_it() -> None:
    folded, difference = fold(trained(SumOfBranches()))
    assert folded == 1
    assert difference < 1e-5


class UsedTwice(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.norm(y) + y  # type: ignore[no-any-return]


class CalledTwice(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.first(self.first(x)))  # type: ignore[no-any-return]


class DoubledBranch(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.norm(y + y)  # type: ignore[no-any-return]


class SharedNormalization(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.first(x)) + self.norm(self.second(x))  # type: ignore[no-any-return]


class WeightReadDirectly(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.first(x)) + self.first.weight.sum()  # type: ignore[no-any-return]


class ActivationBetween(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.first(x).relu())  # type: ignore[no-any-return]


class SumWithTheInput(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.first(x) + x)  # type: ignore[no-any-return]


class DependsOnValues(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.norm(y if y.mean() > 0 else self.second(x))  # type: ignore[no-any-return]


class Hooked(Base):
    def __init__(self) -> None:
        super().__init__()
        self.first.register_forward_hook(lambda module, inputs, output: output * 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.first(x))  # type: ignore[no-any-return]


class WithoutStatistics(Base):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(2, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.first(x))  # type: ignore[no-any-return]


class GroupedTransposed(Base):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(2, 2, 1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.up(x))  # type: ignore[no-any-return]


class OfAnotherWidth(Base):
    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv3d(2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.narrow(x) + self.first(x))  # type: ignore[no-any-return]


class Derived(nn.Conv3d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class DerivedConvolution(Base):
    def __init__(self) -> None:
        super().__init__()
        self.first = Derived(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.first(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "network",
    [
        UsedTwice,
        CalledTwice,
        DoubledBranch,
        SharedNormalization,
        WeightReadDirectly,
        ActivationBetween,
        SumWithTheInput,
        DependsOnValues,
        Hooked,
        WithoutStatistics,
        GroupedTransposed,
        OfAnotherWidth,
        DerivedConvolution,
    ],
)
def test_what_is_not_exactly_a_normalised_convolution_is_left_alone(network: type[Base]) -> None:
    folded, difference = fold(trained(network()))
    assert (folded, difference) == (0, 0.0)


class TakesAnotherWayWhenTraced(Base):
    """Symbolic tracing sees a plain normalised convolution, real tensors go another way."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.norm(y.relu() if isinstance(x, Tensor) else y)  # type: ignore[no-any-return]


def test_a_network_that_misleads_the_tracer_keeps_its_scores() -> None:
    network = trained(TakesAnotherWayWhenTraced())
    modules = list(network.modules())
    assert fold(network) == (0, 0.0)
    assert list(network.modules()) == modules
