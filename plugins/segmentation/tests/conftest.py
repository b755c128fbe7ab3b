"""What the tests of this distribution share: tiny models, tiny images, and the reference data beside the repository."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from innereye_core.config import CTWindow, InferenceConfig, ModelConfig, NetworkConfig, Structure
from innereye_core.host import Host
from innereye_core.plugins import PluginModule
from innereye_segmentation.networks import UNet3D

SHARED = Path(__file__).parents[4] / "shared"

TINY_UNET: dict[str, Any] = {"input_channels": 1, "feature_channels": 2, "classes": 2, "downsampling_paths": 1}


@dataclass
class RecordedProgress:
    """Remembers what it was told."""

    totals: list[int] = field(default_factory=list)
    steps: int = 0

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        self.totals.append(total)
        yield self._advance

    def _advance(self, steps: int) -> None:
        self.steps += steps


@pytest.fixture(scope="session")
def providers() -> Host:
    """What imaging and segmentation offer, whatever else is installed."""
    return Host(
        [
            PluginModule("imaging", "innereye_imaging.plugin"),
            PluginModule("segmentation", "innereye_segmentation.plugin"),
        ]
    )


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    """Patches are too small here to share among threads, which on a busy machine would only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def progress() -> RecordedProgress:
    return RecordedProgress()


@pytest.fixture(scope="session")
def golden() -> Path:
    """Outputs of the original InnerEye code."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("needs the reference data beside the repository")
    return SHARED / "golden"


@pytest.fixture
def tiny_config() -> Callable[..., ModelConfig]:
    """A config of a network with one image channel and one structure; arguments change it."""

    def make(
        network: NetworkConfig | None = None,
        crop_size_zyx: tuple[int, int, int] = (8, 8, 8),
        image_channels: tuple[str, ...] = ("ct",),
        structures: tuple[str, ...] = ("organ",),
    ) -> ModelConfig:
        return ModelConfig(
            schema_version=1,
            model_name="Tiny",
            structures=tuple(Structure(name) for name in structures),
            image_channels=image_channels,
            network=network or NetworkConfig("innereye_segmentation.networks:UNet3D", TINY_UNET),
            inference=InferenceConfig(crop_size_zyx),
            normalization=CTWindow("ct_window", level=50, window=100),
        )

    return make


@pytest.fixture
def tiny_unet() -> UNet3D:
    """The network of the tiny config, with weights and statistics as if it had been trained."""
    torch.manual_seed(1)
    network = UNet3D(**TINY_UNET)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            torch.nn.init.normal_(module.get_buffer("running_mean"), std=0.2)
            torch.nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
    return network.eval()


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Writes voxels (z, y, x) as a NIfTI file."""

    def write(path: Path, voxels_zyx: NDArray[Any], spacing_xyz_mm: tuple[float, float, float] = (1, 1, 1)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nibabel.Nifti1Image(voxels_zyx.T, np.diag([*spacing_xyz_mm, 1.0]))  # type: ignore[no-untyped-call]
        nibabel.save(image, path)
        return path

    return write


_NUMBERS = itertools.count()


@pytest.fixture
def extra_code(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of code under a name that no other test uses, because imports last as long as the process."""

    def write(files: dict[str, str], name: str | None = None, parent: str = "project") -> Path:
        folder = tmp_path / parent / (name or f"SiteCode{next(_NUMBERS)}")
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        return folder

    return write
