"""The 3-D U-Net of InnerEye, with state-dict names and shapes that take InnerEye's checkpoints as they are.

Architecture: Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation" (2015), with
InnerEye's changes: strided convolutions instead of pooling, residual blocks, learned up-sampling, and skip connections
that are added after a convolution of each branch instead of being concatenated. The names of attributes such as
``_layers`` and ``bn1`` are InnerEye's, because the keys of its state dicts are made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from torch import Tensor, nn

SizeZYX: TypeAlias = tuple[int, int, int]


class UNet3D(nn.Module):
    """U-Net from images (batch, channel, z, y, x) to class scores (batch, class, z, y, x) of the same size.

    Each of ``downsampling_paths`` levels divides the size by ``downsampling_factor`` and doubles the number of
    features. What the network asks of a patch follows from that:

    - ``size_multiple_zyx`` is the factor to the power of the levels: only then is every division exact, so that the
      decoder's output meets the encoder's skip connections voxel by voxel.
    - ``minimum_size_zyx`` is the same: the deepest level then has one voxel. Kernel sizes and dilations do not raise
      it, because every convolution is padded with zeros to keep its size.

    Args:
        input_channels: number of image channels.
        feature_channels: number of features at full resolution.
        classes: number of classes, the background counted.
        kernel_size: odd; an int or three ints (z, y, x).
        downsampling_paths: number of levels below full resolution.
        downsampling_factor: an int or three ints (z, y, x); 1 leaves an axis as it is. InnerEye's own network runs
            with 1 and 2 only; the weights of larger factors have the shapes that it would give them.
        downsampling_dilation: dilation of the second convolution of each level below full resolution; an int or three
            ints (z, y, x).
        padding: ``zero``, the only one. InnerEye's networks pad with zeros whatever their padding mode is, except for
            "no padding", with which this network cannot run.

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
        _at_least_one("input_channels", input_channels)
        _at_least_one("feature_channels", feature_channels)
        _at_least_one("classes", classes)
        _at_least_one("downsampling_paths", downsampling_paths)
        kernel_zyx = _zyx("kernel_size", kernel_size)
        factor_zyx = _zyx("downsampling_factor", downsampling_factor)
        dilation_zyx = _zyx("downsampling_dilation", downsampling_dilation)
        if any(size % 2 == 0 for size in kernel_zyx):
            raise ValueError(f"kernel_size {kernel_size}: an even kernel changes the size of the image; use an odd one")
        if padding != "zero":
            raise ValueError(f"padding {padding!r}: InnerEye's U-Net pads with zeros whatever its mode is; use 'zero'")

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
        """Class scores before the activation, (batch, class, z, y, x), for images (batch, channel, z, y, x)."""
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


class _ConvolutionLayer(nn.Module):
    """Convolution that keeps the size (before its stride), with batch normalisation and ReLU unless told otherwise."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_zyx: SizeZYX,
        stride_zyx: SizeZYX = (1, 1, 1),
        dilation_zyx: SizeZYX = (1, 1, 1),
        activated: bool = True,
    ) -> None:
        super().__init__()
        padding_z, padding_y, padding_x = (d * (k - 1) // 2 for k, d in zip(kernel_zyx, dilation_zyx, strict=True))
        padding_zyx = (padding_z, padding_y, padding_x)
        self.conv1 = nn.Conv3d(inputs, outputs, kernel_zyx, stride_zyx, padding_zyx, dilation_zyx, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, nonlinearity="relu")
        self.bn1 = nn.BatchNorm3d(outputs) if activated else nn.Identity()
        self.activation = nn.ReLU(inplace=True) if activated else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.activation(self.bn1(self.conv1(x)))
        return activated


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
        self.block1 = _ConvolutionLayer(inputs, outputs, kernel_zyx, stride_zyx=stride_zyx)
        self.block2 = _ConvolutionLayer(outputs, outputs, kernel_zyx, dilation_zyx=dilation_zyx)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block1(x)
        residual: Tensor = self.block2(x)
        return residual + x


class _Upsampling(nn.Module):
    """Transposed convolution that multiplies the size by exactly ``factor_zyx``.

    The kernel is twice the factor, so that every output voxel sees the same number of weights (Odena et al.,
    "Deconvolution and Checkerboard Artifacts", 2016).
    """

    def __init__(self, inputs: int, outputs: int, factor_zyx: SizeZYX) -> None:
        super().__init__()
        z, y, x = (_UpsampledAxis.by(factor) for factor in factor_zyx)
        self.upsample_block = nn.Sequential(
            nn.ConvTranspose3d(
                inputs,
                outputs,
                kernel_size=(z.kernel, y.kernel, x.kernel),
                stride=factor_zyx,
                padding=(z.padding, y.padding, x.padding),
                output_padding=(z.output_padding, y.output_padding, x.output_padding),
            ),
            nn.BatchNorm3d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        upsampled: Tensor = self.upsample_block(x)
        return upsampled


class _UpsampledAxis(NamedTuple):
    """Settings of a transposed convolution along one axis: (n - 1) · factor - 2 · padding + kernel + output padding."""

    kernel: int
    padding: int
    output_padding: int

    @classmethod
    def by(cls, factor: int) -> _UpsampledAxis:
        """Those with which n voxels become n · factor."""
        return cls(1, 0, 0) if factor == 1 else cls(2 * factor, (factor + 1) // 2, factor % 2)


class _SynthesisBlock(nn.Module):
    """Merge what comes up from below with the skip connection.

    Convolving each branch and adding the results equals one convolution of the two concatenated, with less memory.
    """

    def __init__(self, features: int, kernel_zyx: SizeZYX) -> None:
        super().__init__()
        self.conv1 = _ConvolutionLayer(features, features, kernel_zyx, activated=False)
        self.conv2 = _ConvolutionLayer(features, features, kernel_zyx, activated=False)
        self.activation_block = nn.Sequential(nn.BatchNorm3d(features), nn.ReLU(inplace=True))
        self.block2 = _ConvolutionLayer(features, features, kernel_zyx)

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        x = self.activation_block(self.conv1(x) + self.conv2(skipped))
        residual: Tensor = self.block2(x)
        return residual + x


def _zyx(name: str, value: int | Sequence[int]) -> SizeZYX:
    values = list(value) if isinstance(value, (list, tuple)) else [value] * 3
    if len(values) != 3:
        raise ValueError(f"{name} {value}: must be an integer or three of them (z, y, x)")
    z, y, x = (_at_least_one(name, number) for number in values)
    return z, y, x


def _at_least_one(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} {value!r}: must be an integer of at least 1")
    return value


def _power(factor_zyx: SizeZYX, exponent: int) -> SizeZYX:
    z, y, x = factor_zyx
    return int(z**exponent), int(y**exponent), int(x**exponent)
