"""A network: two convolutions. The model config names it as acme_innereye.networks:TwoConvolutions."""

import torch


class TwoConvolutions(torch.nn.Module):
    def __init__(self, channels: int, classes: int, width: int = 8):
        super().__init__()
        self.first = torch.nn.Conv3d(channels, width, kernel_size=3, padding=1)
        self.second = torch.nn.Conv3d(width, classes, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Class scores (batch, class, z, y, x) of images (batch, channel, z, y, x)."""
        return self.second(torch.relu(self.first(image)))
