"""Seeded patches to compare runtimes on: ellipsoids in noise, with the values that the network's input has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from innereye_core.config import CTWindow, ModelConfig, MRIWindow, SimpleNorm, TrimmedNorm
from innereye_core.model import NetworkGeometry, SizeZYX

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ELLIPSOIDS = 12
_NOISE = 0.05
"""Standard deviation, as a fraction of the range of values."""

_LARGEST_AXIS = 64
"""Voxels; enough for several levels of a U-Net, and small enough to be quick."""


def phantom(config: ModelConfig, batch: int, size_zyx: SizeZYX, seed: int) -> NDArray[np.float32]:
    """Patches as they are after normalisation.

    Returns:
        float32, (batch, channel, z, y, x); equal arguments give equal patches.
    """
    random = np.random.default_rng(seed)
    low, high = _range_of_values(config)
    z, y, x = np.meshgrid(*(np.linspace(0, 1, size) for size in size_zyx), indexing="ij", sparse=True)
    patches = np.full((batch, len(config.image_channels), *size_zyx), low, np.float32)
    for patch in patches:
        for _ in range(_ELLIPSOIDS):
            centre, radii = random.uniform(0, 1, 3), random.uniform(0.1, 0.5, 3)
            distances = (((axis - c) / r) ** 2 for axis, c, r in zip((z, y, x), centre, radii, strict=True))
            patch[:, sum(distances) < 1] = random.uniform(low, high, (len(patch), 1))
    return patches + random.normal(0, _NOISE * (high - low), patches.shape).astype(np.float32)


def patch_sizes(crop_zyx: SizeZYX, geometry: NetworkGeometry) -> tuple[SizeZYX, SizeZYX]:
    """Two sizes (z, y, x) that the network takes and that differ on every axis, no larger than needed."""
    largest = [
        _at_most(min(crop, _LARGEST_AXIS), multiple, minimum)
        for crop, multiple, minimum in zip(crop_zyx, geometry.size_multiple_zyx, geometry.minimum_size_zyx, strict=True)
    ]
    other = [
        size - multiple if size - multiple >= minimum else size + multiple
        for size, multiple, minimum in zip(largest, geometry.size_multiple_zyx, geometry.minimum_size_zyx, strict=True)
    ]
    return _triple(largest), _triple(other)


def larger_of(first: SizeZYX, second: SizeZYX) -> SizeZYX:
    """The larger of two sizes (z, y, x) on each axis."""
    return _triple([max(sizes) for sizes in zip(first, second, strict=True)])


def smaller_of(first: SizeZYX, second: SizeZYX) -> SizeZYX:
    """The smaller of two sizes (z, y, x) on each axis."""
    return _triple([min(sizes) for sizes in zip(first, second, strict=True)])


def smallest_patch(geometry: NetworkGeometry) -> SizeZYX:
    """The smallest size (z, y, x) that the network says it takes."""
    sizes = zip(geometry.size_multiple_zyx, geometry.minimum_size_zyx, strict=True)
    return _triple([_at_most(0, multiple, minimum) for multiple, minimum in sizes])


def _at_most(limit: int, multiple: int, minimum: int) -> int:
    """The largest multiple up to the limit, but no less than the minimum."""
    return max(limit // multiple, -(-minimum // multiple)) * multiple


def _triple(sizes: Sequence[int]) -> SizeZYX:
    z, y, x = sizes
    return z, y, x


def _range_of_values(config: ModelConfig) -> tuple[float, float]:
    match config.normalization:
        case CTWindow() | MRIWindow() | TrimmedNorm():
            return config.normalization.output_range
        case SimpleNorm():
            return -1.0, 3.0
    return (-1000.0, 1000.0) if config.input.modality == "ct" else (0.0, 255.0)
