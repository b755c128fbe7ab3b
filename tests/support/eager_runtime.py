"""A plugin with the runtime ``eager``: PyTorch as it comes, nothing folded and nothing rearranged, to compare with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from innereye_core import hookimpl
from innereye_core.exported_networks import settled_geometry
from innereye_core.model import ModelFiles, NetworkGeometry
from innereye_segmentation.checkpoints.reading import load_weights
from innereye_segmentation.networks.factory import build_network


@dataclasses.dataclass(frozen=True)
class EagerNetwork:
    """A network of PyTorch's, as it was trained."""

    module: nn.Module
    geometry: NetworkGeometry

    def evaluate(self, patches, keep=None) -> Tensor:
        with torch.inference_mode():
            scores = self.module(torch.from_numpy(patches))
        return (scores if keep is None else scores[:, :, *keep]).clone()


class EagerRuntime:
    """Loads such networks from a package."""

    name = "eager"

    def rank(self, model: ModelFiles, device: str) -> int | None:
        return 100 if device == "cpu" else None

    def load(self, model: ModelFiles, device: str) -> Sequence[EagerNetwork]:
        geometry = settled_geometry(model.config)
        assert geometry is not None
        networks = []
        for checkpoint in model.checkpoints:
            module = build_network(model.config.network, model.extra_code).eval()
            load_weights(module, checkpoint)
            networks.append(EagerNetwork(module, geometry))
        return networks


@hookimpl
def innereye_runtimes():
    return [EagerRuntime]
