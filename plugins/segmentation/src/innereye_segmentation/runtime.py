"""The torch runtime: loads checkpoints into their network and evaluates it on batches of patches."""

from __future__ import annotations

import dataclasses
import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from innereye_core.errors import InputError, MissingPluginError
from innereye_core.model import NetworkGeometry, SizeZYX
from innereye_segmentation.checkpoints.reading import load_weights
from innereye_segmentation.folding import fold_batch_normalization, gives
from innereye_segmentation.networks.factory import build_network, describe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from innereye_core.config import ModelConfig
    from innereye_core.contract.providers import Device

logger = logging.getLogger(__name__)


class TorchNetwork:
    """A loaded network, ready to be evaluated.

    Attributes:
        geometry: what the network asks of patches.
    """

    def __init__(
        self,
        module: nn.Module,
        geometry: NetworkGeometry,
        crop_size_zyx: SizeZYX,
        memory_format: torch.memory_format,
        device: Device,
    ) -> None:
        self.geometry = geometry
        self._module = module
        self._crop_size_zyx = crop_size_zyx
        self._memory_format = memory_format
        self._device = device

    def evaluate(self, patches: NDArray[np.float32], keep: tuple[slice, slice, slice] | None = None) -> Tensor:
        """Class scores of a batch of patches, before the activation.

        Args:
            patches: float32, (batch, channel, z, y, x).
            keep: the region (z, y, x) of the output that is wanted; None: all of it.

        Returns:
            A float32 tensor (batch, class, z', y', x') of exactly the region ``keep``, on the network's device.

        Raises:
            InputError: the output has not the size that follows from the geometry.
        """
        inputs = torch.from_numpy(np.require(patches, np.float32, ["C", "W"]))
        with torch.inference_mode(), _full_precision(self._device):
            scores: Tensor = self._module(inputs.to(self._device).contiguous(memory_format=self._memory_format))
        margin_zyx = np.subtract(self._crop_size_zyx, self.geometry.output_size_zyx)
        expected_zyx = np.subtract(patches.shape[2:], margin_zyx).tolist()
        if list(scores.shape[2:]) != expected_zyx:
            raise InputError(
                f"network.output_size_zyx {list(self.geometry.output_size_zyx)} for patches of "
                f"{list(self._crop_size_zyx)}: the network gives {list(scores.shape[2:])} for a patch of "
                f"{list(patches.shape[2:])}, not {expected_zyx}; set output_size_zyx to null to have it found"
            )
        if keep is not None:
            scores = scores[:, :, *keep]
        # A copy made outside of inference mode, so that whoever stitches may work on it in place.
        return scores.float().clone(memory_format=torch.contiguous_format)


def load_network(config: ModelConfig, checkpoint: Path, extra_code: Path | None, device: Device) -> TorchNetwork:
    """Build the network of a config and load a checkpoint into it.

    The network is run on a random patch before it is used, so that what does not fit is found here. The patch has the
    crop size, or less where the config has the output size already and the network says which sizes it takes.

    Args:
        config: names the network; ``network.*_zyx`` override what the network says itself.
        checkpoint: a file of any format of :mod:`innereye_segmentation.checkpoints.names`.
        extra_code: folder whose name is the top-level import name of the network's own code.
        device: ``cpu`` or ``cuda``.

    Raises:
        InputError: the factory, its arguments, the checkpoint, the image channels, the classes or the crop size do not
            fit each other.
        IntegrityError: a weight is NaN or infinite.
        MissingPluginError: there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise MissingPluginError(
            "device cuda: PyTorch finds no CUDA GPU; choose --device cpu, or install a PyTorch with CUDA"
        )
    module = build_network(config.network, extra_code).eval().requires_grad_(False)
    own_multiple_zyx = _own_size(module, "size_multiple_zyx")
    own_minimum_zyx = _own_size(module, "minimum_size_zyx")
    multiple_zyx = config.network.size_multiple_zyx or own_multiple_zyx or (1, 1, 1)
    minimum_zyx = config.network.minimum_size_zyx or own_minimum_zyx or (1, 1, 1)
    crop_zyx = config.inference.crop_size_zyx
    _check_crop_size(crop_zyx, multiple_zyx, minimum_zyx)
    load_weights(module, checkpoint)
    module.to(device)

    probe_zyx = crop_zyx
    if config.network.output_size_zyx and own_multiple_zyx and own_minimum_zyx:
        probe_zyx = _small_patch(own_multiple_zyx, own_minimum_zyx, crop_zyx)
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(1, len(config.image_channels), *probe_zyx, generator=generator).to(device)
    with torch.inference_mode(), _full_precision(device):
        scores = _checked_scores(config, module, probe)
        folded = fold_batch_normalization(module, probe, scores)
        memory_format = _choose_memory_format(module, probe, scores)
    logger.debug("%s: %d batch normalisations folded, weights in %s", checkpoint, folded, memory_format)
    z, y, x = scores.shape[2:]
    geometry = NetworkGeometry(multiple_zyx, minimum_zyx, config.network.output_size_zyx or (z, y, x))
    return TorchNetwork(module, geometry, crop_zyx, memory_format, device)


def with_geometry(config: ModelConfig, geometry: NetworkGeometry) -> ModelConfig:
    """The config with what is known of its network written into it, so that it need not be found again."""
    network = dataclasses.replace(config.network, **dataclasses.asdict(geometry))
    return dataclasses.replace(config, network=network)


def _own_size(module: nn.Module, name: str) -> SizeZYX | None:
    """What the network says of itself: an int or three ints (z, y, x); None where it says nothing."""
    value = getattr(module, name, None)
    if value is None:
        return None
    sizes = (value,) * 3 if isinstance(value, int) else tuple(value)
    if len(sizes) != 3 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise InputError(
            f"network.factory: the network's {name} is {value!r}; it must be three positive ints (z, y, x)"
        )
    return sizes


def _check_crop_size(crop_zyx: SizeZYX, multiple_zyx: SizeZYX, minimum_zyx: SizeZYX) -> None:
    where = f"inference.crop_size_zyx {list(crop_zyx)}"
    if any(crop % multiple for crop, multiple in zip(crop_zyx, multiple_zyx, strict=True)):
        raise InputError(f"{where}: must be a multiple of {list(multiple_zyx)} (z, y, x), the network's size multiple")
    if any(crop < minimum for crop, minimum in zip(crop_zyx, minimum_zyx, strict=True)):
        raise InputError(f"{where}: must be at least {list(minimum_zyx)} (z, y, x), the network's minimum")


def _small_patch(multiple_zyx: SizeZYX, minimum_zyx: SizeZYX, crop_zyx: SizeZYX) -> SizeZYX:
    """About three times the smallest patch that the network takes, so that not all of it is border; at most a crop."""
    z, y, x = (
        min(3 * (-(-minimum // multiple) * multiple), crop)
        for multiple, minimum, crop in zip(multiple_zyx, minimum_zyx, crop_zyx, strict=True)
    )
    return z, y, x


def _checked_scores(config: ModelConfig, module: nn.Module, probe: Tensor) -> Tensor:
    """What the network gives for ``probe``, after everything about it has been checked."""
    shape = f"(batch, channel, z, y, x) = {tuple(probe.shape)}"
    try:
        scores = module(probe)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # the forward method is anybody's code
        raise InputError(
            f"network.factory {config.network.factory}: does not take a patch {shape}: {describe(error)}; check the "
            f"input channels in network.arguments against the {probe.shape[1]} image_channels, and the crop size"
        ) from error
    if not isinstance(scores, Tensor) or scores.ndim != 5 or scores.shape[0] != 1:
        found = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(
            f"network.factory {config.network.factory}: gives {found} for a patch {shape}; "
            "it must give one tensor (batch, class, z, y, x)"
        )
    if scores.shape[1] != config.class_count:
        raise InputError(
            f"network.factory {config.network.factory}: gives {scores.shape[1]} classes, but the config has "
            f"{len(config.structures)} structures and the background, {config.class_count} classes; "
            "check network.arguments"
        )
    if not torch.isfinite(scores).all():
        raise InputError(
            f"network.factory {config.network.factory}: gives NaN or infinite scores for a random patch; "
            "check the network, and choose another epoch"
        )
    if any(size > given for size, given in zip(scores.shape[2:], probe.shape[2:], strict=True)):
        raise InputError(
            f"network.factory {config.network.factory}: gives shape {tuple(scores.shape)} for a patch {shape}; "
            "the output must not be larger than the patch"
        )
    return scores


def _choose_memory_format(module: nn.Module, probe: Tensor, scores: Tensor) -> torch.memory_format:
    """Lay the weights out with channels last, which convolutions are faster with, where the network can be so."""
    for memory_format in (torch.channels_last_3d, torch.contiguous_format):
        for parameter in module.parameters():
            if parameter.ndim == 5:
                parameter.data = parameter.data.contiguous(memory_format=memory_format)
        if gives(module, probe.contiguous(memory_format=memory_format), scores):
            break
    return memory_format


def _full_precision(device: Device) -> AbstractContextManager[Any]:
    """Convolutions in float32 also on GPUs that would round to TF32, always by the same algorithm."""
    if device == "cpu":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
