"""What the tests of this distribution share: a small U-Net, packaged and exported once."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_packages import UNET, UNET_ARGUMENTS, UNET_CROP, exported, lively, write_package

from innereye_core.exporting import ExportedPackage
from innereye_segmentation.networks import UNet3D


@pytest.fixture(autouse=True)
def single_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches are too small here to share among threads, which on a busy machine would only wait for one another."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def unet_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of a U-Net that was not exported; not to be changed."""
    network = lively(UNet3D(**UNET_ARGUMENTS))
    return write_package(tmp_path_factory.mktemp("unet") / "run", [network], UNET, UNET_ARGUMENTS, UNET_CROP)


@pytest.fixture(scope="session")
def exported_unet(unet_package: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportedPackage:
    """Its export, compared with PyTorch in OpenVINO alone; not to be changed."""
    return exported(unet_package, tmp_path_factory.mktemp("exported"))
