"""The convolution layer that all of InnerEye's networks are made of."""

from __future__ import annotations

from torch import Tensor, nn

from innereye_core.model import SizeZYX


class ConvolutionLayer(nn.Module):
    """A convolution, then batch normalisation and ReLU unless told otherwise.

    The attributes are named as in InnerEye, because the keys of its state dicts are made of these names.

    Args:
        inputs: number of features that come in.
        outputs: number of features that go out.
        kernel_zyx: size of the kernel.
        stride_zyx: by how much the size is divided.
        dilation_zyx: distance between the voxels that the kernel sees.
        padded: pad with zeros, so that an odd kernel of stride 1 keeps the size; else an axis loses
            dilation · (kernel − 1) voxels.
        bias: whether the convolution has a bias.
        normalized: whether there is batch normalisation.
        activated: whether there is a ReLU.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_zyx: SizeZYX,
        *,
        stride_zyx: SizeZYX = (1, 1, 1),
        dilation_zyx: SizeZYX = (1, 1, 1),
        padded: bool = True,
        bias: bool = False,
        normalized: bool = True,
        activated: bool = True,
    ) -> None:
        super().__init__()
        z, y, x = (d * (k - 1) // 2 if padded else 0 for k, d in zip(kernel_zyx, dilation_zyx, strict=True))
        self.conv1 = nn.Conv3d(inputs, outputs, kernel_zyx, stride_zyx, (z, y, x), dilation_zyx, bias=bias)
        nn.init.kaiming_normal_(self.conv1.weight, nonlinearity="relu")
        self.bn1 = nn.BatchNorm3d(outputs) if normalized else nn.Identity()
        self.activation = nn.ReLU(inplace=True) if activated else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """What comes out for features (batch, feature, z, y, x)."""
        activated: Tensor = self.activation(self.bn1(self.conv1(x)))
        return activated
