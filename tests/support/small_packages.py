"""Small real packages of any network, exported or not, for the tests of exporters and runtimes."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from innereye_core import SelectionOptions, package
from innereye_core.exporting import ExportedPackage, export
from innereye_core.host import Host
from innereye_core.model import ModelFiles, SizeZYX
from innereye_core.plugins import PluginModule
from innereye_core.registered_models import load_model
from innereye_segmentation.checkpoints.reading import load_weights
from innereye_segmentation.networks.factory import build_network

UNET = "innereye_segmentation.networks:UNet3D"
UNET_ARGUMENTS = {"input_channels": 1, "feature_channels": 4, "classes": 3, "downsampling_paths": 2}
UNET_CROP = (8, 16, 12)

PLUGINS = ("imaging", "segmentation", "onnx", "openvino")


def host(*plugins: str) -> Host:
    """What these plugins offer, whatever else is installed; without names, all that score."""
    return Host([PluginModule(name, f"innereye_{name}.plugin") for name in plugins or PLUGINS])


def lively(network: nn.Module, seed: int = 1) -> nn.Module:
    """The network with weights and statistics as if it had been trained."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.reset_parameters()
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.get_buffer("running_mean"), std=0.2)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
    return network.eval().requires_grad_(False)


def write_package(
    folder: Path,
    networks: Sequence[nn.Module],
    factory: str,
    arguments: dict[str, Any],
    crop_zyx: SizeZYX,
    *,
    classes: int = 3,
    code: Path | None = None,
    **settings: Any,
) -> Path:
    """Package networks of one factory: one as ``final_model``, several as the folds of an ensemble.

    Args:
        folder: of the run; made here.
        networks: with their weights.
        factory: what builds them.
        arguments: of the factory.
        crop_zyx: patch size.
        classes: number of classes, background included.
        code: extra code directory.
        settings: more of ``network`` in the model config.
    """
    config = {
        "schema_version": 1,
        "model_name": "Small",
        "structures": [{"name": f"structure{number}"} for number in range(1, classes)],
        "image_channels": ["ct"],
        "network": {"factory": factory, "arguments": arguments, **settings},
        "normalization": {"method": "ct_window", "level": 40, "window": 400},
        "inference": {"crop_size_zyx": list(crop_zyx), "stitching": "average"},
    }
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(json.dumps(config))
    ensemble = len(networks) > 1
    for fold, network in enumerate(networks):
        checkpoints = (folder / str(fold) if ensemble else folder) / "checkpoints"
        checkpoints.mkdir(parents=True)
        torch.save({"epoch": 1, "state_dict": network.state_dict()}, checkpoints / "1_checkpoint.pth.tar")
    selection = SelectionOptions(extra_code_directory=code)
    return package(folder, selection, ensemble=ensemble, host=host("imaging", "segmentation")).folder


def exported(package: Path, output: Path, precision: str = "fp32", plugins: Sequence[str] = PLUGINS) -> ExportedPackage:
    """What ``innereye export onnx`` makes of a package, with these plugins installed."""
    return export("onnx", package, output, precision=precision, host=host(*plugins))


def eager_scores(model: ModelFiles, patches: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What eager float32 PyTorch gives for patches, for each checkpoint: nothing folded, nothing rearranged."""
    scores = []
    for checkpoint in model.checkpoints:
        network = build_network(model.config.network, model.extra_code).eval()
        load_weights(network, checkpoint)
        with torch.inference_mode():
            scores.append(network(torch.from_numpy(patches)).numpy())
    return scores


def model_of(package: Path) -> ModelFiles:
    """What a runtime loads."""
    return load_model(package, host=host()).files


def patches(batch: int, size_zyx: SizeZYX, seed: int = 0) -> NDArray[np.float32]:
    """Noise in one channel."""
    return np.random.default_rng(seed).standard_normal((batch, 1, *size_zyx)).astype(np.float32)


_NUMBERS = itertools.count()


def write_code(folder: Path, source: str) -> Path:
    """A folder of code with the module ``nets``, under a name that no other test uses in this process."""
    code = folder / f"SmallCode{os.getpid()}x{next(_NUMBERS)}"
    code.mkdir(parents=True)
    (code / "nets.py").write_text(f"import torch\nfrom torch import nn\n\n\n{source}")
    return code
