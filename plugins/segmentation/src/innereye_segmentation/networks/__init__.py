"""Networks that come with the plugin; any other is named by its factory in the config."""

from innereye_segmentation.networks.unet3d import UNet3D

__all__ = ["UNet3D"]
