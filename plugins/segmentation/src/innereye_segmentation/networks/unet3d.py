"""The 3-D U-Net of InnerEye, with state-dict names and shapes that take InnerEye's checkpoints as they are.

Architecture: Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation" (2015), with
InnerEye's changes: strided convolutions instead of pooling, residual blocks, learned up-sampling, and skip connections
that are added after a convolution of each branch instead of being concatenated. The names of attributes such as
``_layers`` and ``block1`` are InnerEye's, because the keys of its state dicts are made of them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import get_args

from torch import Tensor, fx, nn

from innereye_core.config import NumpyPadding
from innereye_core.model import SizeZYX
from innereye_segmentation.networks.arguments import at_least, zyx
from innereye_segmentation.networks.conv_blocks import ConvolutionLayer

logger = logging.getLogger(__name__)


class UNet3D(nn.Module):
    """U-Net from images (batch, channel, z, y, x) to class scores (batch, class, z, y, x) of the same size.

    Each of ``downsampling_paths`` levels divides the size by ``downsampling_factor`` and doubles the number of
    features. What the network asks of a patch follows from that:

    - ``size_multiple_zyx`` is the factor to the power of the levels: only then is every division exact, so that the
      decoder's output meets the encoder's skip connections voxel by voxel.
    - ``minimum_size_zyx`` is the same: the deepest level then has one voxel. Kernel sizes and dilations do not raise
      it, because every convolution is padded with zeros to keep its size.

    InnerEye's network does not run with a factor above 2 on patches of its size multiple, nor with dilated kernels
    above 3. Here both are continued in the same way, so that all of its state dicts load.

    Args:
        input_channels: number of image channels.
        feature_channels: number of features at full resolution.
        classes: number of classes, the background counted.
        kernel_size: odd; an int or three ints (z, y, x).
        downsampling_paths: number of levels below full resolution.
        downsampling_factor: an int or three ints (z, y, x); 1 leaves an axis as it is.
        downsampling_dilation: dilation of the second convolution of each level below full resolution; an int or three
            ints (z, y, x).
        padding: InnerEye's padding mode, by the names of ``inference.padding``. Whatever it is, InnerEye's network pads
            with zeros, and so does this one, with a warning where another name says otherwise. ``none`` is possible
            only where there is nothing to pad, with a kernel of 1.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        input_channels: int,
        feature_channels: int,
        classes: int,
        kernel_size: int | Sequence[int] = 3,
        downsampling_paths: int = 4,
        downsampling_factor: int | Sequence[int] = 2,
        downsampling_dilation: int | Sequence[int] = 1,
        padding: str = "zero",
    ) -> None:
        super().__init__()
        at_least(1, "input_channels", input_channels)
        at_least(1, "feature_channels", feature_channels)
        at_least(1, "classes", classes)
        at_least(0, "downsampling_paths", downsampling_paths)
        kernel_zyx = zyx("kernel_size", kernel_size)
        factor_zyx = zyx("downsampling_factor", downsampling_factor)
        dilation_zyx = zyx("downsampling_dilation", downsampling_dilation)
        if any(size % 2 == 0 for size in kernel_zyx):
            raise ValueError(f"kernel_size {kernel_size}: an even kernel changes the size of the image; use an odd one")
        _check_padding(padding, kernel_zyx)

        self.size_multiple_zyx: SizeZYX = _power(factor_zyx, downsampling_paths)
        self.minimum_size_zyx: SizeZYX = self.size_multiple_zyx
        self._levels = downsampling_paths

        features = [feature_channels * 2**level for level in range(downsampling_paths + 1)]
        self._layers = nn.ModuleList([_EncoderBlock(input_channels, features[0], kernel_zyx)])
        for above, below in pairwise(features):
            self._layers.append(_EncoderBlock(above, below, kernel_zyx, factor_zyx, dilation_zyx))
        for below, above in pairwise(reversed(features)):
            self._layers.append(_Upsampling(below, above, factor_zyx))
            self._layers.append(_SynthesisBlock(above, kernel_zyx))
        self.output_layer = nn.Conv3d(features[0], classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the activation, (batch, class, z, y, x), for images (batch, channel, z, y, x).

        Raises:
            ValueError: the size is no multiple of ``size_multiple_zyx``.
        """
        _check_size(x, self.size_multiple_zyx)
        layers = list(self._layers)
        encoder, decoder = layers[: self._levels + 1], layers[self._levels + 1 :]
        skipped = []
        for block in encoder:
            x = block(x)
            skipped.append(x)
        skipped.pop()
        for upsample, synthesize in zip(decoder[0::2], decoder[1::2], strict=True):
            x = synthesize(upsample(x), skipped.pop())
        scores: Tensor = self.output_layer(x)
        return scores


class _EncoderBlock(nn.Module):
    """A layer that may reduce the size, and a layer that learns the residual to it."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_zyx: SizeZYX,
        stride_zyx: SizeZYX = (1, 1, 1),
        dilation_zyx: SizeZYX = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.block1 = ConvolutionLayer(inputs, outputs, kernel_zyx, stride_zyx=stride_zyx)
        self.block2 = ConvolutionLayer(outputs, outputs, kernel_zyx, dilation_zyx=dilation_zyx)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block1(x)
        residual: Tensor = self.block2(x)
        return residual + x


class _Upsampling(nn.Module):
    """Transposed convolution that multiplies the size by exactly ``factor_zyx``.

    The kernel is twice the factor, so that every output voxel sees the same number of weights (Odena et al.,
    "Deconvolution and Checkerboard Artifacts", 2016). InnerEye's padding, factor − 1, puts what comes from voxel i
    around voxel factor · i, which is where the encoder took it from. With factors above 2 that leaves factor − 2 voxels
    too few at the end; the output padding computes them too.
    """

    def __init__(self, inputs: int, outputs: int, factor_zyx: SizeZYX) -> None:
        super().__init__()
        z, y, x = factor_zyx
        self.upsample_block = nn.Sequential(
            nn.ConvTranspose3d(
                inputs,
                outputs,
                kernel_size=(_upsampling_kernel(z), _upsampling_kernel(y), _upsampling_kernel(x)),
                stride=factor_zyx,
                padding=(z - 1, y - 1, x - 1),
                output_padding=(max(z - 2, 0), max(y - 2, 0), max(x - 2, 0)),
            ),
            nn.BatchNorm3d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        upsampled: Tensor = self.upsample_block(x)
        return upsampled


class _SynthesisBlock(nn.Module):
    """Merge what comes up from below with the skip connection.

    Convolving each branch and adding the results equals one convolution of the two concatenated, with less memory.
    """

    def __init__(self, features: int, kernel_zyx: SizeZYX) -> None:
        super().__init__()
        self.conv1 = ConvolutionLayer(features, features, kernel_zyx, normalized=False, activated=False)
        self.conv2 = ConvolutionLayer(features, features, kernel_zyx, normalized=False, activated=False)
        self.activation_block = nn.Sequential(nn.BatchNorm3d(features), nn.ReLU(inplace=True))
        self.block2 = ConvolutionLayer(features, features, kernel_zyx)

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        x = self.activation_block(self.conv1(x) + self.conv2(skipped))
        residual: Tensor = self.block2(x)
        return residual + x


@fx.wrap  # symbolic tracing, with which batch normalisation is folded, cannot follow a decision about sizes
def _check_size(image: Tensor, multiple_zyx: SizeZYX) -> None:
    """Without it, a level of one voxel would be broadcast to the size of the other branch."""
    size_zyx = list(image.shape[2:])
    if any(size % multiple for size, multiple in zip(size_zyx, multiple_zyx, strict=True)):
        raise ValueError(f"a patch of {size_zyx} voxels (z, y, x): this network needs multiples of {[*multiple_zyx]}")


def _check_padding(padding: str, kernel_zyx: SizeZYX) -> None:
    known = get_args(NumpyPadding)
    if padding not in known:
        raise ValueError(
            f"padding {padding!r}: must be one of {', '.join(known)}; all of them mean zero in this network"
        )
    if padding == "none" and max(kernel_zyx) > 1:
        raise ValueError(
            f"padding 'none' with a kernel of {[*kernel_zyx]} (z, y, x): convolutions without padding shrink the "
            "image, so that the levels no longer meet; use 'zero'"
        )
    if padding not in ("zero", "constant", "none"):
        logger.warning("padding %r: as in InnerEye, this network pads with zeros whatever is named here", padding)


def _upsampling_kernel(factor: int) -> int:
    return 2 * factor if factor > 1 else 1


def _power(factor_zyx: SizeZYX, exponent: int) -> SizeZYX:
    z, y, x = factor_zyx
    return int(z**exponent), int(y**exponent), int(x**exponent)
