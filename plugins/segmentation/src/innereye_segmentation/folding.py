"""Folds batch normalisation into the convolutions before it, which saves a pass over every feature map.

In evaluation mode batch normalisation is a fixed scale and shift per channel, and a convolution can carry both:
``scale · (W x + b) + shift = (scale · W) x + (scale · b + shift)`` (Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", 2018). Where a sum of convolutions is normalised, each takes
the scale and one of them the shift.
"""

from __future__ import annotations

import copy
import logging
import operator
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias, cast

import torch
from torch import Tensor, fx, nn

logger = logging.getLogger(__name__)

Convolution: TypeAlias = (
    nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
)
BatchNorm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
_NORMALIZATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_KNOWN = (*_CONVOLUTIONS, *_NORMALIZATIONS, nn.Identity)
_ADDITIONS = (operator.add, operator.iadd, torch.add)

LARGEST_CHANGE = 1e-5
"""By how much another form of a network may change any score. Softmax then changes no posterior by more than half of
that, well within the 1e-5 to which posteriors agree with InnerEye's. Networks that amplify rounding, as untrained ones
do, exceed it and stay as they are."""


def fold_batch_normalization(
    network: nn.Module, example: Tensor, scores: Tensor, largest_change: float = LARGEST_CHANGE
) -> int:
    """Fold, in place, what can be folded without changing the scores.

    Which convolutions feed which normalisation is found by tracing the network symbolically; ``forward`` itself stays
    as it is. A network that cannot be traced is left alone, and so is one whose scores for the example change by more
    than ``largest_change``: whatever a network does with its modules, its answer stays the same.

    Args:
        network: in evaluation mode.
        example: an input (batch, channel, …).
        scores: what the network gives for it.
        largest_change: what is taken for rounding.

    Returns:
        How many normalisations were folded.
    """
    try:
        graph = fx.Tracer().trace(network)
    except Exception as error:  # the forward method is anybody's code
        logger.debug("batch normalisation is not folded, because the network cannot be traced: %s", error)
        return 0
    modules = dict(network.named_modules())
    sums = list(_Graph(graph, modules).normalized_sums())
    folded = {name: module for normalized in sums for name, module in normalized.folded().items()}
    _replace(network, folded)
    if not gives(network, example, scores, largest_change):
        _replace(network, {name: modules[name] for name in folded})
        logger.info("batch normalisation is not folded, because that would change the scores of this network")
        return 0
    return len(sums)


def gives(network: nn.Module, example: Tensor, scores: Tensor, largest_change: float = LARGEST_CHANGE) -> bool:
    """Whether the network gives these scores for the example, but for rounding."""
    try:
        difference = (network(example) - scores).abs().max()
    except RuntimeError as error:
        logger.debug("the network fails in another form: %s", error)
        return False
    return bool(difference <= largest_change)


@dataclass(frozen=True)
class _NormalizedSum:
    """A sum of convolutions (often of one) that is normalised, and used for nothing else."""

    convolutions: Mapping[str, Convolution]
    name: str
    """Of the normalisation."""
    normalization: BatchNorm

    def folded(self) -> dict[str, nn.Module]:
        """What takes the place of the modules, by name."""
        mean = self.normalization.get_buffer("running_mean").double()
        scale = (self.normalization.get_buffer("running_var").double() + self.normalization.eps).rsqrt()
        shift = -mean * scale
        if self.normalization.affine:
            scale = scale * self.normalization.weight.double()
            shift = self.normalization.bias.double() - mean * scale
        folded: dict[str, nn.Module] = {self.name: nn.Identity()}
        for name, convolution in self.convolutions.items():
            folded[name] = _scaled_and_shifted(convolution, scale, shift)
            shift = torch.zeros_like(shift)
        return folded


def _scaled_and_shifted(convolution: Convolution, scale: Tensor, shift: Tensor) -> Convolution:
    shape = [1] * convolution.weight.ndim
    shape[1 if isinstance(convolution, _TRANSPOSED) else 0] = -1
    bias = shift if convolution.bias is None else convolution.bias.double() * scale + shift
    result = copy.deepcopy(convolution)
    dtype = convolution.weight.dtype
    result.weight = nn.Parameter((convolution.weight.double() * scale.view(shape)).to(dtype), requires_grad=False)
    result.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    return result


class _Graph:
    """The traced graph of a network, with what is needed to see what can be folded."""

    def __init__(self, graph: fx.Graph, modules: Mapping[str, nn.Module]) -> None:
        self._nodes = list(graph.nodes)
        self._modules = modules
        self._calls = Counter(str(node.target) for node in self._nodes if node.op == "call_module")
        self._read = {str(node.target).rpartition(".")[0] for node in self._nodes if node.op == "get_attr"}

    def normalized_sums(self) -> Iterator[_NormalizedSum]:
        for node in self._nodes:
            normalization = self._module(node)
            if not isinstance(normalization, _NORMALIZATIONS) or normalization.training:
                continue
            names = self._summed(node.args[0])
            convolutions = {name: cast(Convolution, self._modules[name]) for name in names}
            fitting = all(one.out_channels == normalization.num_features for one in convolutions.values())
            has_statistics = normalization.running_mean is not None
            if has_statistics and fitting and len(names) == len(convolutions) > 0:
                yield _NormalizedSum(convolutions, str(node.target), normalization)

    def _summed(self, node: object) -> list[str]:
        """Names of the convolutions whose sum the node is; none where it is anything else or has other users."""
        if not isinstance(node, fx.Node) or len(node.users) != 1:
            return []
        module = self._module(node)
        if isinstance(module, nn.Identity):
            return self._summed(node.args[0])
        if isinstance(module, _CONVOLUTIONS):
            spread = isinstance(module, _TRANSPOSED) and module.groups > 1  # over both axes of the weight
            return [] if spread else [str(node.target)]
        if node.op == "call_function" and node.target in _ADDITIONS and len(node.args) == 2 and not node.kwargs:
            first, second = (self._summed(argument) for argument in node.args)
            return first + second if first and second else []
        return []

    def _module(self, node: fx.Node) -> nn.Module | None:
        """The convolution or normalisation that a node calls, where the network does nothing else with it."""
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            return None
        name = str(node.target)
        module = self._modules[name]
        watched = module._forward_hooks or module._forward_pre_hooks
        exact = type(module) in _KNOWN  # a derived class may do more than its base
        return module if exact and self._calls[name] == 1 and name not in self._read and not watched else None


def _replace(network: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, module)
