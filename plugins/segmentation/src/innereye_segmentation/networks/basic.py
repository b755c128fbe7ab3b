"""The "Basic" network of InnerEye, with state-dict names and shapes that take InnerEye's checkpoints as they are.

It is close to DeepMedic (Kamnitsas et al., "Efficient multi-scale 3D CNN with fully connected CRF for accurate brain
lesion segmentation", 2017) at one resolution. No convolution is padded, so that the scores of a voxel follow from its
neighbourhood alone, wherever in the patch it is. The names of attributes such as ``_layers`` and ``conv`` are
InnerEye's, because the keys of its state dicts are made of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from innereye_core.model import SizeZYX
from innereye_segmentation.networks.arguments import at_least, zyx
from innereye_segmentation.networks.conv_blocks import ConvolutionLayer

_DILATION = 2
"""Of both layers of a residual block."""


class Basic(nn.Module):
    """Convolutional network from images (batch, channel, z, y, x) to the class scores of their centre.

    Two layers, three residual blocks of two dilated layers each, and a layer that gives the classes. Each layer takes
    dilation · (kernel − 1) voxels off each axis, the network 14 · (kernel − 1): with a kernel of 3 these are 28 voxels,
    14 on each side. ``size_multiple_zyx`` is 1, and ``minimum_size_zyx`` one voxel more than is taken off.

    Args:
        input_channels: number of image channels.
        feature_channels: number of features of each of the eight layers before the last. Where the number before and
            after a residual block (layers 2 and 4, 4 and 6, 6 and 8) differ, the residual goes through a 1 × 1 × 1
            convolution to as many features as the block's first layer has.
        classes: number of classes, the background counted.
        kernel_size: an int or three ints (z, y, x).

    Raises:
        ValueError: an argument is out of range, or the layers of a residual block do not fit each other.
    """

    def __init__(
        self, input_channels: int, feature_channels: Sequence[int], classes: int, kernel_size: int | Sequence[int] = 3
    ) -> None:
        super().__init__()
        at_least(1, "input_channels", input_channels)
        at_least(1, "classes", classes)
        kernel_zyx = zyx("kernel_size", kernel_size)
        features = _eight(feature_channels)

        self.size_multiple_zyx: SizeZYX = (1, 1, 1)
        z, y, x = ((2 + 6 * _DILATION) * (size - 1) + 1 for size in kernel_zyx)
        self.minimum_size_zyx: SizeZYX = (z, y, x)

        self._layers = nn.ModuleList(
            [
                ConvolutionLayer(input_channels, features[0], kernel_zyx, padded=False, bias=True),
                ConvolutionLayer(features[0], features[1], kernel_zyx, padded=False, bias=True),
                _ResidualBlock(features[1:4], kernel_zyx),
                _ResidualBlock(features[3:6], kernel_zyx),
                _ResidualBlock(features[5:8], kernel_zyx),
                nn.Conv3d(features[7], classes, kernel_size=1),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the activation, (batch, class, z', y', x'), for images (batch, channel, z, y, x)."""
        for layer in self._layers:
            x = layer(x)
        return x


class _ResidualBlock(nn.Module):
    """Two layers that learn the residual to the centre of what comes in."""

    def __init__(self, features: Sequence[int], kernel_zyx: SizeZYX) -> None:
        super().__init__()
        before, middle, after = features
        if before != after and middle not in (after, 1):  # one feature is broadcast, as in InnerEye
            raise ValueError(
                f"feature_channels: a residual block goes from {before} features over {middle} to {after}; "
                f"make the one in the middle {after}, or the first and the last equal"
            )
        dilation_zyx = (_DILATION, _DILATION, _DILATION)
        self.layers = nn.Sequential(
            ConvolutionLayer(before, middle, kernel_zyx, dilation_zyx=dilation_zyx, padded=False, bias=True),
            ConvolutionLayer(
                middle, after, kernel_zyx, dilation_zyx=dilation_zyx, padded=False, bias=True, activated=False
            ),
        )
        self.conv: nn.Module = nn.Identity()
        if before != after:
            self.conv = ConvolutionLayer(before, middle, (1, 1, 1), bias=True, activated=False)
        z, y, x = (_without_margin(_DILATION * (size - 1)) for size in kernel_zyx)
        self._centre = (z, y, x)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.layers(x)
        centre: Tensor = self.conv(x[:, :, *self._centre])
        return (residual + centre).relu()


def _without_margin(margin: int) -> slice:
    return slice(margin, -margin or None)


def _eight(feature_channels: Sequence[int]) -> list[int]:
    if not isinstance(feature_channels, (list, tuple)) or len(feature_channels) != 8:
        raise ValueError(f"feature_channels {feature_channels!r}: must be a list of eight integers, one for each layer")
    return [at_least(1, "feature_channels", features) for features in feature_channels]
