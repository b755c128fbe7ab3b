"""What the tests of this room share: configs, image files, the installed formats, and a network without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from innereye_core.config import (
    InferenceConfig,
    InputConfig,
    ModelConfig,
    NetworkConfig,
    PostprocessingConfig,
    Structure,
)
from innereye_core.model import ModelFiles, NetworkGeometry
from innereye_imaging.itk_formats import MetaImage, Nrrd
from innereye_imaging.nifti import Nifti

SHARED = Path(__file__).resolve().parents[3].parent / "shared"

LPS_1MM = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture
def golden() -> Path:
    """Outputs of the original InnerEye code."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("the reference data of the original InnerEye are not beside this checkout")
    return SHARED / "golden"


@pytest.fixture
def real_data() -> Path:
    """Real scans."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real scans are not beside this checkout")
    return SHARED / "data"


@dataclass
class Installed:
    """What core would give: the providers of installed plugins."""

    formats: list[Any] = field(default_factory=lambda: [Nifti(), Nrrd(), MetaImage()])
    available_runtimes: list[Any] = field(default_factory=list)

    def checkpoint_formats(self) -> list[Any]:
        return []

    def image_formats(self) -> list[Any]:
        return self.formats

    def runtimes(self) -> list[Any]:
        return self.available_runtimes


@pytest.fixture
def installed() -> Installed:
    return Installed()


@pytest.fixture
def make_config() -> Callable[..., ModelConfig]:
    """A valid config; keyword arguments replace parts of it."""

    def make(
        crop_size_zyx: tuple[int, int, int] = (4, 4, 4),
        structures: Sequence[str] = ("organ",),
        channels: Sequence[str] = ("ct",),
        activation: str = "none",
        input: dict[str, Any] | None = None,
        postprocessing: PostprocessingConfig | None = None,
        normalization: Any = None,
        **inference: Any,
    ) -> ModelConfig:
        parts = {} if normalization is None else {"normalization": normalization}
        return ModelConfig(
            schema_version=1,
            model_name="Test",
            structures=tuple(Structure(name=name) for name in structures),
            image_channels=tuple(channels),
            network=NetworkConfig(factory="nets:build", activation=activation),
            inference=InferenceConfig(crop_size_zyx=crop_size_zyx, **inference),
            input=InputConfig(**(input or {})),
            postprocessing=postprocessing or PostprocessingConfig(),
            **parts,
        )

    return make


@pytest.fixture
def write_nifti(tmp_path: Path) -> Callable[..., Path]:
    """Write voxels (z, y, x) with nibabel alone, LPS at 1 mm if not told otherwise."""

    def write(voxels: np.ndarray, affine: np.ndarray = LPS_1MM, name: str = "image.nii.gz") -> Path:
        path = tmp_path / name
        nib.save(nib.Nifti1Image(voxels.T, affine, dtype=voxels.dtype), path)
        return path

    return write


class NumpyNetwork:
    """A network without torch: a function of patches (batch, channel, z, y, x), cut by ``margin`` at the border."""

    def __init__(
        self,
        function: Callable[[np.ndarray], np.ndarray],
        crop_size_zyx: tuple[int, int, int] = (4, 4, 4),
        margin_zyx: tuple[int, int, int] = (0, 0, 0),
        multiple_zyx: tuple[int, int, int] = (1, 1, 1),
        minimum_zyx: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        z, y, x = (crop - margin for crop, margin in zip(crop_size_zyx, margin_zyx, strict=True))
        self.geometry = NetworkGeometry(multiple_zyx, minimum_zyx, (z, y, x))
        self.patch_shapes: list[tuple[int, ...]] = []
        self._function = function
        self._margin_zyx = margin_zyx

    def evaluate(self, patches: np.ndarray, keep: tuple[slice, slice, slice] | None = None) -> np.ndarray:
        assert patches.dtype == np.float32
        self.patch_shapes.append(patches.shape)
        valid = (slice(-(-m // 2), size - m // 2) for m, size in zip(self._margin_zyx, patches.shape[2:], strict=True))
        scores = self._function(patches)[:, :, *valid]
        return scores if keep is None else scores[:, :, *keep]


@pytest.fixture
def numpy_network() -> type[NumpyNetwork]:
    return NumpyNetwork


def probabilities_of_values(patches: np.ndarray) -> np.ndarray:
    """Class 1 is as probable as the voxel's value says."""
    return np.concatenate([1 - patches[:, :1], patches[:, :1]], axis=1)


@pytest.fixture
def identity() -> Callable[[np.ndarray], np.ndarray]:
    return probabilities_of_values


@dataclass
class NumpyRuntime:
    """A runtime that hands out ready-made networks."""

    networks: Sequence[NumpyNetwork] = ()
    ranks: dict[str, int] = field(default_factory=lambda: {"cpu": 1})
    name: str = "numpy"
    loaded_on: list[str] = field(default_factory=list)

    def rank(self, model: ModelFiles, device: str) -> int | None:
        return self.ranks.get(device)

    def load(self, model: ModelFiles, device: str) -> Sequence[NumpyNetwork]:
        self.loaded_on.append(device)
        return self.networks


@pytest.fixture
def numpy_runtime() -> type[NumpyRuntime]:
    return NumpyRuntime
