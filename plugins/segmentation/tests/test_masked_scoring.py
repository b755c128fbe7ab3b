"""A mask confines what a torch network finds, on the device where its posteriors are stitched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from innereye_core.config import ModelConfig, Stitching
from innereye_core.host import Host
from innereye_imaging.pipeline import prepare_study, segment
from innereye_segmentation.networks import UNet3D
from innereye_segmentation.runtime import load_network


@pytest.mark.parametrize("stitching", ["average", "crop", "gaussian"])
@pytest.mark.parametrize("orientation", [None, "LPS", "SLA"])
def test_outside_is_background_and_inside_nothing_changes(
    tmp_path: Path,
    tiny_config: Callable[..., ModelConfig],
    tiny_unet: UNet3D,
    write_image: Callable[..., Path],
    providers: Host,
    stitching: Stitching,
    orientation: str | None,
) -> None:
    config = tiny_config()
    config = dataclasses.replace(
        config,
        input=dataclasses.replace(config.input, orientation=orientation),
        inference=dataclasses.replace(config.inference, stitching=stitching, stride_zyx=(4, 6, 8)),
    )
    torch.save(tiny_unet.state_dict(), tmp_path / "epoch_1.pt")
    network = load_network(config, tmp_path / "epoch_1.pt", None, "cuda" if torch.cuda.is_available() else "cpu")
    voxels = np.random.default_rng(0).integers(0, 100, (10, 11, 12)).astype(np.int16)
    inside = np.zeros(voxels.shape, bool)
    inside[2:8, 3:9, 1:10] = True
    image = write_image(tmp_path / "ct.nii.gz", voxels)
    mask = write_image(tmp_path / "mask.nii.gz", inside.astype(np.uint8))

    free = segment(prepare_study([image], config, providers), [network], config, posteriors=True)
    confined = segment(prepare_study([image], config, providers, mask=mask), [network], config, posteriors=True)

    assert free.posteriors is not None
    assert confined.posteriors is not None
    assert free.labels[~inside].any()
    assert not confined.labels[~inside].any()
    np.testing.assert_array_equal(confined.labels[inside], free.labels[inside])
    np.testing.assert_array_equal(confined.posteriors[:, inside], free.posteriors[:, inside])
    assert (confined.posteriors[0, ~inside] == 1).all()
    assert not confined.posteriors[1:, ~inside].any()
