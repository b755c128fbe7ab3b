"""The patches that runtimes are compared on look like those that the network gets."""

from __future__ import annotations

import numpy as np
import pytest

from innereye_core.config import CTWindow, InferenceConfig, ModelConfig, NetworkConfig, NoNormalization, Structure
from innereye_core.model import NetworkGeometry
from innereye_onnx.phantom import patch_sizes, phantom, smallest_patch


def config(normalization: object, channels: int = 1) -> ModelConfig:
    return ModelConfig(
        schema_version=1,
        model_name="Tiny",
        structures=(Structure("organ"),),
        image_channels=tuple(f"channel{number}" for number in range(channels)),
        network=NetworkConfig("some.where:Network"),
        inference=InferenceConfig((8, 8, 8)),
        normalization=normalization,
    )


def test_equal_seeds_give_equal_patches_and_others_others() -> None:
    one, same, other = (phantom(config(NoNormalization()), 2, (8, 9, 10), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert (one.shape, one.dtype) == ((2, 1, 8, 9, 10), np.float32)


@pytest.mark.parametrize(
    ("normalization", "low", "high"),
    [(CTWindow("ct_window", level=40, window=400, output_range=(-1, 1)), -1, 1), (NoNormalization(), 0, 255)],
)
def test_values_are_those_after_normalisation(normalization, low, high) -> None:
    values = phantom(config(normalization, channels=2), 1, (32, 32, 32), 0)
    assert values.shape[1] == 2
    near, far = np.percentile(values, (5, 95))
    assert low - 0.1 * (high - low) <= near < far <= high + 0.1 * (high - low)
    assert far - near > 0.3 * (high - low)


@pytest.mark.parametrize(
    ("crop", "multiple", "minimum", "sizes", "smallest"),
    [
        ((96, 120, 100), (4, 4, 4), (4, 4, 4), ((64, 64, 64), (60, 60, 60)), (4, 4, 4)),
        ((1, 16, 24), (1, 8, 8), (1, 8, 8), ((1, 16, 24), (2, 8, 16)), (1, 8, 8)),
        ((33, 30, 36), (1, 1, 1), (29, 29, 29), ((33, 30, 36), (32, 29, 35)), (29, 29, 29)),
        ((80, 80, 80), (80, 80, 80), (80, 80, 80), ((80, 80, 80), (160, 160, 160)), (80, 80, 80)),
    ],
)
def test_sizes_are_two_that_the_network_takes(crop, multiple, minimum, sizes, smallest) -> None:
    geometry = NetworkGeometry(multiple, minimum, crop)
    assert patch_sizes(crop, geometry) == sizes
    assert smallest_patch(geometry) == smallest
