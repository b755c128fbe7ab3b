"""What the tests of this distribution share: a small U-Net, packaged and exported once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from small_packages import UNET, UNET_ARGUMENTS, UNET_CROP, exported, lively, write_code, write_package

from innereye_core.exporting import ExportedPackage
from innereye_segmentation.networks import UNet3D


@pytest.fixture(autouse=True)
def single_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Patches are too small here to share among threads, which on a busy machine would only wait for one another."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def unet_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of a U-Net that was not exported; not to be changed."""
    network = lively(UNet3D(**UNET_ARGUMENTS))
    return write_package(tmp_path_factory.mktemp("unet") / "run", [network], UNET, UNET_ARGUMENTS, UNET_CROP)


@pytest.fixture(scope="session")
def exported_unet(unet_package: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportedPackage:
    """Its export, in float16 too; not to be changed."""
    return exported(unet_package, tmp_path_factory.mktemp("exported"), "fp16")


@pytest.fixture
def package_of(tmp_path: Path) -> Callable[..., Path]:
    """Packages the network ``Net`` of some source code, with random weights."""

    def make(source: str, crop_zyx: tuple[int, int, int] = (8, 12, 12), **settings: object) -> Path:
        code = write_code(tmp_path, source)
        namespace: dict[str, type[torch.nn.Module]] = {}
        exec((code / "nets.py").read_text(), namespace)
        torch.manual_seed(3)
        network = namespace["Net"]()
        factory = f"{code.name}.nets:Net"
        return write_package(tmp_path / "run", [network], factory, {}, crop_zyx, classes=2, code=code, **settings)

    return make
