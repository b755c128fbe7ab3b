"""Networks that come with the plugin; any other is named by its factory in the config."""

from innereye_segmentation.networks.basic import Basic
from innereye_segmentation.networks.unet2d import UNet2D
from innereye_segmentation.networks.unet3d import UNet3D

__all__ = ["Basic", "UNet2D", "UNet3D"]
