"""The torch runtime loads what fits together, refuses the rest, and gives eager PyTorch's answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from innereye_core.config import ModelConfig, NetworkConfig
from innereye_core.errors import InputError, IntegrityError, MissingPluginError
from innereye_core.model import ModelFiles, NetworkGeometry
from innereye_segmentation.networks import UNet3D
from innereye_segmentation.providers import TorchRuntime
from innereye_segmentation.runtime import TorchNetwork, load_network, with_geometry

MakeConfig = Callable[..., ModelConfig]
WriteCode = Callable[..., Path]

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA GPU")


def save(path: Path, network: nn.Module) -> Path:
    torch.save({"epoch": 1, "state_dict": network.state_dict()}, path)
    return path


def load_code(config: ModelConfig, code: Path, tmp_path: Path, network: nn.Module | None = None) -> TorchNetwork:
    checkpoint = save(tmp_path / "1_checkpoint.pth.tar", network or nn.Conv3d(1, 2, 1))
    return load_network(config, checkpoint, code, "cpu")


def random_patches(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(4).normal(size=shape).astype(np.float32)


# --- scores -----------------------------------------------------------------------------------------------------------


def test_labels_are_those_of_eager_pytorch(tmp_path: Path, tiny_config: MakeConfig, tiny_unet: UNet3D) -> None:
    network = load_network(tiny_config(), save(tmp_path / "1_checkpoint.pth.tar", tiny_unet), None, "cpu")
    patches = random_patches(3, 1, 8, 8, 8)
    with torch.inference_mode():
        eager = tiny_unet(torch.from_numpy(patches))
    scores = network.evaluate(patches)
    assert torch.equal(scores.argmax(dim=1), eager.argmax(dim=1))
    np.testing.assert_allclose(scores, eager, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["unet3d_a.ckpt", "unet3d_a_ens1.ckpt"])
def test_labels_of_the_original_stay_after_folding(golden: Path, tiny_config: MakeConfig, name: str) -> None:
    arguments: dict[str, Any] = {"input_channels": 1, "feature_channels": 4, "classes": 4, "downsampling_paths": 2}
    config = tiny_config(
        NetworkConfig("innereye_segmentation.networks:UNet3D", arguments),
        crop_size_zyx=(8, 12, 20),
        structures=("liver", "spleen", "kidney"),
    )
    arrays = np.load(golden / "unet3d" / name.replace("ckpt", "npz"))
    scores = load_network(config, golden / "unet3d" / name, None, "cpu").evaluate(arrays["input_0"])
    assert np.array_equal(scores.argmax(dim=1), arrays["logits_0"].argmax(axis=1))


def test_only_the_region_that_is_kept_comes_back(tmp_path: Path, tiny_config: MakeConfig, tiny_unet: UNet3D) -> None:
    network = load_network(tiny_config(), save(tmp_path / "1_checkpoint.pth.tar", tiny_unet), None, "cpu")
    patches = random_patches(2, 1, 8, 8, 8)
    kept = network.evaluate(patches, keep=(slice(2, 6), slice(0, 3), slice(7, 8)))
    assert torch.equal(kept, network.evaluate(patches)[:, :, 2:6, 0:3, 7:8])


def test_scores_are_float32_contiguous_and_free_to_be_changed(
    tmp_path: Path, tiny_config: MakeConfig, tiny_unet: UNet3D
) -> None:
    network = load_network(tiny_config(), save(tmp_path / "1_checkpoint.pth.tar", tiny_unet), None, "cpu")
    patches = random_patches(1, 1, 8, 8, 8)
    patches.flags.writeable = False
    scores = network.evaluate(patches)
    scores += 1
    assert (scores.dtype, scores.is_contiguous(), scores.requires_grad) == (torch.float32, True, False)


def test_each_checkpoint_of_an_ensemble_becomes_a_network(
    tmp_path: Path, tiny_config: MakeConfig, tiny_unet: UNet3D
) -> None:
    paths = [save(tmp_path / "0_checkpoint.pth.tar", tiny_unet)]
    with torch.no_grad():
        assert tiny_unet.output_layer.bias is not None
        tiny_unet.output_layer.bias += 1
    paths.append(save(tmp_path / "1_checkpoint.pth.tar", tiny_unet))
    first, second = TorchRuntime().load(ModelFiles(tiny_config(), tuple(paths)), "cpu")
    patches = random_patches(1, 1, 8, 8, 8)
    np.testing.assert_allclose(second.evaluate(patches), first.evaluate(patches) + 1, rtol=0, atol=1e-5)


def test_a_network_that_needs_contiguous_patches_gets_them(
    tmp_path: Path, tiny_config: MakeConfig, extra_code: WriteCode
) -> None:
    code = extra_code(
        {
            "nets.py": "import torch\nclass Net(torch.nn.Conv3d):\n    def forward(self, x):\n"
            "        return super().forward(x.view(x.shape[0], -1).view(x.shape))\n"
        }
    )
    config = tiny_config(
        NetworkConfig(f"{code.name}.nets:Net", {"in_channels": 2, "out_channels": 2, "kernel_size": 1}),
        image_channels=("a", "b"),
    )
    plain = nn.Conv3d(2, 2, 1)
    network = load_code(config, code, tmp_path, plain)
    patches = random_patches(1, 2, 8, 8, 8)
    np.testing.assert_allclose(network.evaluate(patches), plain(torch.from_numpy(patches)).detach(), rtol=0, atol=1e-5)


# --- geometry ---------------------------------------------------------------------------------------------------------


def test_the_networks_own_geometry_is_used(tmp_path: Path, tiny_config: MakeConfig, tiny_unet: UNet3D) -> None:
    network = load_network(tiny_config(), save(tmp_path / "1_checkpoint.pth.tar", tiny_unet), None, "cpu")
    assert network.geometry == NetworkGeometry((2, 2, 2), (2, 2, 2), (8, 8, 8))


def test_the_config_overrides_it(tmp_path: Path, tiny_config: MakeConfig, tiny_unet: UNet3D) -> None:
    config = tiny_config()
    network = dataclasses.replace(config.network, size_multiple_zyx=(4, 4, 4), minimum_size_zyx=(8, 4, 4))
    loaded = load_network(
        dataclasses.replace(config, network=network), save(tmp_path / "epoch_1.pt", tiny_unet), None, "cpu"
    )
    assert loaded.geometry == NetworkGeometry((4, 4, 4), (8, 4, 4), (8, 8, 8))


VALID_CONVOLUTION = "import torch\ndef net():\n    return torch.nn.Conv3d(1, 2, (1, 3, 5))\n"


def test_an_output_that_is_smaller_than_the_patch_is_found(
    tmp_path: Path, tiny_config: MakeConfig, extra_code: WriteCode
) -> None:
    code = extra_code({"nets.py": VALID_CONVOLUTION})
    network = load_code(tiny_config(NetworkConfig(f"{code.name}.nets:net")), code, tmp_path, nn.Conv3d(1, 2, (1, 3, 5)))
    assert network.geometry == NetworkGeometry((1, 1, 1), (1, 1, 1), (8, 6, 4))
    assert network.evaluate(random_patches(1, 1, 5, 6, 7)).shape == (1, 2, 5, 4, 3)


def test_a_package_needs_no_other_patch_than_the_run(
    tmp_path: Path, tiny_config: MakeConfig, extra_code: WriteCode
) -> None:
    code = extra_code({"nets.py": VALID_CONVOLUTION})
    config = tiny_config(NetworkConfig(f"{code.name}.nets:net"))
    geometry = load_code(config, code, tmp_path, nn.Conv3d(1, 2, (1, 3, 5))).geometry
    packaged = with_geometry(config, geometry)
    assert load_code(packaged, code, tmp_path, nn.Conv3d(1, 2, (1, 3, 5))).geometry == geometry


def test_an_output_size_that_is_not_true_is_refused(tmp_path: Path, tiny_config: MakeConfig, tiny_unet: UNet3D) -> None:
    config = with_geometry(tiny_config(), NetworkGeometry((2, 2, 2), (2, 2, 2), (6, 8, 8)))
    network = load_network(config, save(tmp_path / "1_checkpoint.pth.tar", tiny_unet), None, "cpu")
    with pytest.raises(
        InputError, match=r"network.output_size_zyx \[6, 8, 8\] .* gives \[8, 8, 8\] .* not \[6, 8, 8\]"
    ):
        network.evaluate(random_patches(1, 1, 8, 8, 8), keep=(slice(0, 6), slice(0, 8), slice(0, 8)))


@pytest.mark.parametrize(
    ("crop_size", "message"),
    [
        ((8, 8, 7), r"inference.crop_size_zyx \[8, 8, 7\]: must be a multiple of \[2, 2, 2\]"),
        ((4, 8, 8), r"inference.crop_size_zyx \[4, 8, 8\]: must be at least \[6, 2, 2\]"),
    ],
)
def test_a_crop_size_that_the_network_cannot_take_is_refused(
    tmp_path: Path, tiny_config: MakeConfig, tiny_unet: UNet3D, crop_size: tuple[int, int, int], message: str
) -> None:
    config = tiny_config(crop_size_zyx=crop_size)
    config = dataclasses.replace(config, network=dataclasses.replace(config.network, minimum_size_zyx=(6, 2, 2)))
    with pytest.raises(InputError, match=message):
        load_network(config, save(tmp_path / "1_checkpoint.pth.tar", tiny_unet), None, "cpu")


DECLARING = "import torch\ndef net():\n    n = torch.nn.Conv3d(1, 2, 1)\n    n.size_multiple_zyx = {}\n    return n\n"


def test_a_network_whose_attributes_make_no_sense_is_refused(
    tmp_path: Path, tiny_config: MakeConfig, extra_code: WriteCode
) -> None:
    code = extra_code({"nets.py": DECLARING.format("(2, 0, 2)")})
    with pytest.raises(InputError, match=r"size_multiple_zyx is \(2, 0, 2\); it must be three positive ints"):
        load_code(tiny_config(NetworkConfig(f"{code.name}.nets:net")), code, tmp_path)


def test_attributes_may_be_single_numbers(tmp_path: Path, tiny_config: MakeConfig, extra_code: WriteCode) -> None:
    code = extra_code({"nets.py": DECLARING.format("4")})
    geometry = load_code(tiny_config(NetworkConfig(f"{code.name}.nets:net")), code, tmp_path).geometry
    assert geometry.size_multiple_zyx == (4, 4, 4)


# --- what does not fit ------------------------------------------------------------------------------------------------


def test_another_number_of_classes_is_refused(tmp_path: Path, tiny_config: MakeConfig, tiny_unet: UNet3D) -> None:
    config = tiny_config(structures=("organ", "tumour"))
    with pytest.raises(
        InputError, match="gives 2 classes, but the config has 2 structures and the background, 3 classes"
    ):
        load_network(config, save(tmp_path / "1_checkpoint.pth.tar", tiny_unet), None, "cpu")


def test_another_number_of_image_channels_is_refused(
    tmp_path: Path, tiny_config: MakeConfig, tiny_unet: UNet3D
) -> None:
    config = tiny_config(image_channels=("t1", "t2"))
    with pytest.raises(
        InputError, match=r"does not take a patch .*\(1, 2, 8, 8, 8\).*against the 2 image_channels"
    ) as error:
        load_network(config, save(tmp_path / "1_checkpoint.pth.tar", tiny_unet), None, "cpu")
    assert "\n" not in str(error.value)


def test_weights_of_another_network_are_refused(tmp_path: Path, tiny_config: MakeConfig) -> None:
    with pytest.raises(
        InputError, match=r"does not fit the network; keys 46 missing: .*; 2 unexpected: weight, bias; check"
    ):
        load_network(tiny_config(), save(tmp_path / "1_checkpoint.pth.tar", nn.Linear(1, 1)), None, "cpu")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, tiny_config: MakeConfig, tiny_unet: UNet3D) -> None:
    with torch.no_grad():
        tiny_unet.output_layer.weight[0] = torch.nan
    with pytest.raises(IntegrityError, match=r"output_layer.weight"):
        load_network(tiny_config(), save(tmp_path / "1_checkpoint.pth.tar", tiny_unet), None, "cpu")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("(y, y)", "gives tuple for a patch"),
        ("y.mean(dim=1)", r"gives shape \(1, 8, 8, 8\) for a patch"),
        ("y * float('nan')", "gives NaN or infinite scores for a random patch"),
        ("torch.nn.functional.interpolate(y, scale_factor=2)", "must not be larger than the patch"),
    ],
)
def test_an_output_that_is_no_map_of_scores_is_refused(
    tmp_path: Path, tiny_config: MakeConfig, extra_code: WriteCode, expression: str, message: str
) -> None:
    code = extra_code(
        {
            "nets.py": "import torch\nclass Net(torch.nn.Conv3d):\n"
            "    def __init__(self):\n        super().__init__(1, 2, 1)\n"
            f"    def forward(self, x):\n        y = super().forward(x)\n        return {expression}\n"
        }
    )
    with pytest.raises(InputError, match=message):
        load_code(tiny_config(NetworkConfig(f"{code.name}.nets:Net")), code, tmp_path)


# --- devices ----------------------------------------------------------------------------------------------------------


def test_rank_is_given_for_checkpoints_that_pytorch_reads(tiny_config: MakeConfig) -> None:
    runtime = TorchRuntime()
    assert runtime.rank(ModelFiles(tiny_config(), (Path("1_checkpoint.pth.tar"), Path("last.ckpt"))), "cpu") is not None
    assert runtime.rank(ModelFiles(tiny_config(), (Path("1_checkpoint.pth.tar"), Path("model.onnx"))), "cpu") is None


@without_cuda
def test_without_a_gpu_cuda_is_not_ranked_and_not_loaded(
    tmp_path: Path, tiny_config: MakeConfig, tiny_unet: UNet3D
) -> None:
    model = ModelFiles(tiny_config(), (save(tmp_path / "1_checkpoint.pth.tar", tiny_unet),))
    assert TorchRuntime().rank(model, "cuda") is None
    with pytest.raises(MissingPluginError, match="device cuda: PyTorch finds no CUDA GPU; choose --device cpu"):
        TorchRuntime().load(model, "cuda")


@needs_cuda
def test_labels_on_a_gpu_are_those_of_the_cpu(tmp_path: Path, tiny_config: MakeConfig, tiny_unet: UNet3D) -> None:
    checkpoint = save(tmp_path / "1_checkpoint.pth.tar", tiny_unet)
    patches = random_patches(2, 1, 8, 8, 8)
    scores = [load_network(tiny_config(), checkpoint, None, device).evaluate(patches) for device in ("cpu", "cuda")]
    assert scores[1].is_cuda
    np.testing.assert_allclose(scores[1].cpu(), scores[0], rtol=0, atol=1e-4)
