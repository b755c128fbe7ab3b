"""The 2-D U-Net of InnerEye: the 3-D one, kept within slices."""

from __future__ import annotations

from collections.abc import Sequence

from innereye_segmentation.networks.arguments import within_slices
from innereye_segmentation.networks.unet3d import UNet3D


class UNet2D(UNet3D):
    """U-Net that segments each slice by itself, from (batch, channel, z, y, x) to (batch, class, z, y, x).

    It is :class:`UNet3D` with kernels, factors and dilations of 1 along z, so that a patch may have any number of
    slices. InnerEye's own has no choice of kernel and factor: they are the defaults here.

    Args:
        input_channels: number of image channels.
        feature_channels: number of features at full resolution.
        classes: number of classes, the background counted.
        kernel_size: odd; an int for y and x, or three ints (1, y, x).
        downsampling_paths: number of levels below full resolution.
        downsampling_factor: an int for y and x, or three ints (1, y, x).
        downsampling_dilation: an int for y and x, or three ints (1, y, x). InnerEye's default is 2 here, but 1 in 3-D.
        padding: as for :class:`UNet3D`.

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
        downsampling_dilation: int | Sequence[int] = 2,
        padding: str = "zero",
    ) -> None:
        super().__init__(
            input_channels,
            feature_channels,
            classes,
            within_slices("kernel_size", kernel_size),
            downsampling_paths,
            within_slices("downsampling_factor", downsampling_factor),
            within_slices("downsampling_dilation", downsampling_dilation),
            padding,
        )
