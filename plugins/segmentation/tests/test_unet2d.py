"""UNet2D is InnerEye's: the 3-D network with settings that keep it within slices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innereye_core.config import InferenceConfig, ModelConfig, NetworkConfig
from innereye_core.host import Host
from innereye_core.model import ModelFiles
from innereye_imaging.pipeline import prepare_study, segment
from innereye_segmentation.networks import UNet2D, UNet3D
from innereye_segmentation.providers import TorchRuntime


def test_it_is_the_3d_network_with_the_settings_of_the_original() -> None:
    flat = UNet2D(1, 1, 2).eval()
    deep = UNet3D(1, 1, 2, (1, 3, 3), 4, (1, 2, 2), (1, 2, 2)).eval()
    state = flat.state_dict()
    assert list(state) == list(deep.state_dict())
    deep.load_state_dict(state)
    image = torch.randn(1, 1, 2, 16, 32)
    with torch.inference_mode():
        assert torch.equal(flat(image), deep(image))


def test_weights_of_the_original_have_kernels_of_one_slice() -> None:
    state = UNet2D(2, 3, 4, downsampling_paths=1).state_dict()
    assert {key: list(tensor.shape) for key, tensor in state.items() if tensor.ndim == 5} == {
        "_layers.0.block1.conv1.weight": [3, 2, 1, 3, 3],
        "_layers.0.block2.conv1.weight": [3, 3, 1, 3, 3],
        "_layers.1.block1.conv1.weight": [6, 3, 1, 3, 3],
        "_layers.1.block2.conv1.weight": [6, 6, 1, 3, 3],
        "_layers.2.upsample_block.0.weight": [6, 3, 1, 4, 4],
        "_layers.3.conv1.conv1.weight": [3, 3, 1, 3, 3],
        "_layers.3.conv2.conv1.weight": [3, 3, 1, 3, 3],
        "_layers.3.block2.conv1.weight": [3, 3, 1, 3, 3],
        "output_layer.weight": [4, 3, 1, 1, 1],
    }


@settings(max_examples=20, deadline=None)
@given(
    slices=st.integers(1, 4),
    levels=st.integers(1, 3),
    kernel=st.sampled_from([1, 3, 5, [1, 3, 5]]),
    dilation=st.sampled_from([1, 2, [1, 1, 3]]),
)
def test_each_slice_is_segmented_by_itself(slices: int, levels: int, kernel: Any, dilation: Any) -> None:
    network = UNet2D(1, 1, 2, kernel, levels, 2, dilation).eval()
    image = torch.randn(1, 1, slices, 8, 16, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        together = network(image)
        alone = [network(image[:, :, z : z + 1]) for z in range(slices)]
    assert together.shape == (1, 2, slices, 8, 16)
    torch.testing.assert_close(together, torch.cat(alone, dim=2))


def test_patches_may_have_any_number_of_slices() -> None:
    network = UNet2D(1, 1, 2)
    assert network.size_multiple_zyx == network.minimum_size_zyx == (1, 16, 16)


@pytest.mark.parametrize("name", ["kernel_size", "downsampling_factor", "downsampling_dilation"])
def test_what_reaches_across_slices_is_refused(name: str) -> None:
    arguments: dict[str, Any] = {"input_channels": 1, "feature_channels": 1, "classes": 2, name: [3, 1, 1]}
    with pytest.raises(ValueError, match=rf"{name} \[3, 1, 1\]: must be 1 along z"):
        UNet2D(**arguments)


def test_arguments_are_checked_as_those_of_the_3d_network() -> None:
    with pytest.raises(ValueError, match=r"kernel_size .*: an even kernel changes the size"):
        UNet2D(1, 1, 2, kernel_size=2)


@pytest.mark.parametrize("stitching", ["average", "crop"])
def test_the_number_of_slices_in_a_patch_does_not_change_the_segmentation(
    stitching: Literal["average", "crop"],
    tmp_path: Path,
    providers: Host,
    tiny_config: Callable[..., ModelConfig],
    write_image: Callable[..., Path],
) -> None:
    arguments: dict[str, Any] = {"input_channels": 1, "feature_channels": 2, "classes": 2, "downsampling_paths": 2}
    network = NetworkConfig("innereye_segmentation.networks:UNet2D", arguments)
    torch.manual_seed(2)
    checkpoint = tmp_path / "1_checkpoint.pth.tar"
    torch.save({"epoch": 1, "state_dict": UNet2D(**arguments).state_dict()}, checkpoint)
    voxels = np.random.default_rng(0).integers(0, 100, (5, 20, 24)).astype(np.int16)
    image = write_image(tmp_path / "ct.nii.gz", voxels)
    results = []
    for slices in (1, 3):
        inference = InferenceConfig((slices, 8, 12), stitching=stitching)
        config = dataclasses.replace(tiny_config(network), inference=inference)
        loaded = TorchRuntime().load(ModelFiles(config, (checkpoint,)), "cpu")
        assert loaded[0].geometry.size_multiple_zyx == (1, 4, 4)
        found = segment(prepare_study([image], config, providers), loaded, config, posteriors=True)
        assert found.posteriors is not None
        results.append(found.posteriors)
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=1e-5)
