"""Put patches together again: the three stitchings, streaming finished posteriors into a sink.

``average`` and ``gaussian`` hold a rolling slab as high as one network output, ``crop`` holds nothing, so that no array
of classes × image is needed. Posteriors stay in the runtime's own array type (array API standard) until they are
finished.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import device as device_of
from numpy.typing import NDArray

from innereye_core.config import Stitching
from innereye_imaging.tiling import AxisPlan, Box, Tile, TilingPlan

if TYPE_CHECKING:
    from innereye_core.contract.providers import Array

_PATCH_SIZE_PER_SIGMA = 8
"""The Gaussian's standard deviation is an eighth of the patch, as in nnU-Net and MONAI."""


_SLICES_AT_ONCE = 8
"""How much of a slab is worked on together: little memory, and few calls."""


class Sink(Protocol):
    """Where finished posteriors go."""

    def put(self, region: Box, posteriors: Array) -> None:
        """Take the final posteriors (class, z, y, x) of a region of the image; regions never overlap."""
        ...


class Stitcher(ABC):
    """Combines the posteriors of patches."""

    @abstractmethod
    def add(self, tile: Tile, posteriors: Array) -> None:
        """Take the posteriors (class, z, y, x) of the region that ``tile`` keeps; tiles come in the plan's order."""

    @abstractmethod
    def finish(self) -> None:
        """Hand on what is still held, after the last patch."""


def make_stitcher(stitching: Stitching, plan: TilingPlan, sink: Sink) -> Stitcher:
    """The stitcher of that name, for one image."""
    if stitching == "crop":
        return CentreCrop(sink)
    weights = [gaussian_weights(axis) if stitching == "gaussian" else np.ones(axis.output) for axis in plan.axes]
    return WeightedAverage(plan, weights, sink)


def gaussian_weights(axis: AxisPlan) -> NDArray[np.float64]:
    """Importance of each voxel of the network's output along one axis: a Gaussian around the middle of the patch."""
    margin_before = axis.first_padding[0]
    distance = np.arange(axis.output) + margin_before - (axis.crop - 1) / 2
    weights: NDArray[np.float64] = np.exp(-0.5 * (distance / (axis.crop / _PATCH_SIZE_PER_SIGMA)) ** 2)
    return weights


class CentreCrop(Stitcher):
    """``crop``: the plan lets each voxel be decided by one patch, so every patch is finished at once."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def add(self, tile: Tile, posteriors: Array) -> None:
        """Hand the patch on."""
        self._sink.put(tile.target, posteriors)

    def finish(self) -> None:
        """Nothing is held."""


class WeightedAverage(Stitcher):
    """``average`` and ``gaussian``: the mean of all patches that reach a voxel, weighted by a product of three lines.

    The slab is a ring of slices: slice z of the image is slice z modulo its height. Before a row of patches higher up
    is added, the slices below it are finished.
    """

    def __init__(self, plan: TilingPlan, weights_zyx: Iterable[NDArray[np.float64]], sink: Sink) -> None:
        """Make a stitcher for one image; each line of weights has the length of the network's output."""
        self._plan = plan
        self._sink = sink
        self._weights = [weights.astype(np.float32) for weights in weights_zyx]
        self._uniform = all((weights == 1).all() for weights in self._weights)
        self._weight_sums = [
            _sum_of_weights(axis, weights, size)
            for axis, weights, size in zip(plan.axes, self._weights, plan.image_size_zyx, strict=True)
        ]
        self._height = min(plan.output_size_zyx[0], plan.image_size_zyx[0])
        self._slab: Array = None
        self._finished = 0

    def add(self, tile: Tile, posteriors: Array) -> None:
        """Add the weighted posteriors of a patch to the slab."""
        xp = array_namespace(posteriors)
        z, y, x = tile.target
        if self._slab is None:
            shape = (posteriors.shape[0], self._height, *self._plan.image_size_zyx[1:])
            self._slab = xp.zeros(shape, dtype=xp.float32, device=device_of(posteriors))
        self._finish_below(z.start)
        if not self._uniform:
            posteriors = posteriors * self._on_device(
                *(weights[keep] for weights, keep in zip(self._weights, tile.keep, strict=True))
            )
        for image_z, slab_z in self._ring(z.start, z.stop):
            part = slice(image_z.start - z.start, image_z.stop - z.start)
            self._slab[:, slab_z, y, x] += posteriors[:, part, :, :]

    def finish(self) -> None:
        """Finish the slices that are left."""
        self._finish_below(self._plan.image_size_zyx[0])

    def _finish_below(self, end: int) -> None:
        """Hand on the slices before ``end``, and make room for later ones."""
        _, height, width = self._plan.image_size_zyx
        for image_z, slab_z in self._ring(self._finished, end):
            sum_z, sum_y, sum_x = self._weight_sums
            posteriors = self._slab[:, slab_z, :, :] / self._on_device(sum_z[image_z], sum_y, sum_x)
            self._sink.put((image_z, slice(0, height), slice(0, width)), posteriors)
            self._slab[:, slab_z, :, :] = 0
        self._finished = end

    def _ring(self, start: int, end: int) -> Iterator[tuple[slice, slice]]:
        """Slices of the image, and the slices of the slab that they are, a few at a time."""
        while start < end:
            position = start % self._height
            length = min(end - start, self._height - position, _SLICES_AT_ONCE)
            yield slice(start, start + length), slice(position, position + length)
            start += length

    def _on_device(self, z: NDArray[np.float32], y: NDArray[np.float32], x: NDArray[np.float32]) -> Array:
        """The product (z, y, x) of three lines, as an array like the slab."""
        product = z[:, None, None] * y[:, None] * x
        return array_namespace(self._slab).asarray(product, device=device_of(self._slab))


def _sum_of_weights(axis: AxisPlan, weights: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Sum of the weights of all patches that reach each voxel of the image, along one axis."""
    total = np.zeros(size, np.float64)
    for tile in axis.tiles:
        total[tile.target] += weights[tile.keep]
    return total.astype(np.float32)
