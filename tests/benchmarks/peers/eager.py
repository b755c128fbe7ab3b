"""What all peers share: the network of a package as plain eager PyTorch, and the volume as it sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.jobs import Job
from benchmarks.network import build, description
from innereye_segmentation.networks.unet3d import UNet3D


class Posteriors(nn.Module):
    """A network with its softmax: every peer then combines probabilities, as InnerEye did and as we do."""

    def __init__(self, network: UNet3D) -> None:
        super().__init__()
        self.network: UNet3D = network

    def forward(self, patches: Tensor) -> Tensor:
        """(batch, channel, z, y, x) → (batch, class, z, y, x)."""
        return torch.softmax(self.network(patches), dim=1)


def load_network(job: Job) -> Posteriors:
    """The network, after one patch, so that nobody's clock includes what a library does only once."""
    package = Path(job.package)
    network = build(description(package))
    checkpoint = next((package / "checkpoints").iterdir())
    network.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    posteriors = Posteriors(network).eval().to(job.device)
    with torch.inference_mode():
        posteriors(torch.zeros(1, 1, *job.crop_size_zyx, device=job.device))
    return posteriors


def read_volume(job: Job) -> NDArray[np.int16]:
    """The stored voxels (z, y, x)."""
    image: Any = nibabel.load(job.image)
    return np.ascontiguousarray(np.asarray(image.dataobj).T)
