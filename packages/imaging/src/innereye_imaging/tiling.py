"""The tiling plan: how an image is padded and cut into patches, and which voxels each patch decides.

The patches form a grid, so everything is planned axis by axis. Three arrays are involved: the *image*, the *padded
image* that patches are cut from, and the network's *output* for one patch, which may be smaller than the patch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

from innereye_core.config import InferenceConfig
from innereye_core.errors import InputError
from innereye_core.model import NetworkGeometry, SizeZYX

Box: TypeAlias = tuple[slice, slice, slice]
"""A region (z, y, x)."""

Widths: TypeAlias = tuple[int, int]
"""Voxels added before and after."""


@dataclass(frozen=True)
class AxisTile:
    """One patch along one axis."""

    start: int
    """Its first voxel, in the padded image."""
    target: slice
    """The voxels of the image that it contributes to."""
    keep: slice
    """The same voxels in the network's output."""


@dataclass(frozen=True)
class AxisPlan:
    """The patches along one axis."""

    crop: int
    """Length of a patch."""
    stride: int
    output: int
    """Length of the network's output for a patch."""
    first_padding: Widths
    """``crop``: zeros up to the network's size multiple; else the margin that the network does not return."""
    grid_padding: Widths
    """What the grid of patches needs beyond that."""
    tiles: tuple[AxisTile, ...]


@dataclass(frozen=True)
class Tile:
    """One patch."""

    start_zyx: SizeZYX
    target: Box
    keep: Box


@dataclass(frozen=True)
class PaddingStep:
    """One application of :func:`numpy.pad` to the normalised image."""

    mode: str
    widths_zyx: tuple[Widths, ...]


@dataclass(frozen=True)
class TilingPlan:
    """How one image is cut into patches."""

    image_size_zyx: SizeZYX
    axes: tuple[AxisPlan, AxisPlan, AxisPlan]
    padding: tuple[PaddingStep, ...]
    """Applied in this order."""

    @property
    def crop_size_zyx(self) -> SizeZYX:
        """Size of every patch."""
        return _triple(axis.crop for axis in self.axes)

    @property
    def output_size_zyx(self) -> SizeZYX:
        """Size of the network's output for such a patch."""
        return _triple(axis.output for axis in self.axes)

    def __len__(self) -> int:
        return math.prod(len(axis.tiles) for axis in self.axes)

    def __iter__(self) -> Iterator[Tile]:
        """Every patch; z changes slowest, x fastest."""
        for z, y, x in product(*(axis.tiles for axis in self.axes)):
            yield Tile((z.start, y.start, x.start), (z.target, y.target, x.target), (z.keep, y.keep, x.keep))


def plan_tiling(image_size_zyx: SizeZYX, inference: InferenceConfig, network: NetworkGeometry) -> TilingPlan:
    """Plan the patches of an image.

    ``average`` (InnerEye until 2021, on the radio library) and ``gaussian`` pad as far as the stride grid needs, an odd
    voxel after; every voxel of the output counts. ``crop`` (InnerEye's torchio pipeline) pads with zeros up to the size
    multiple, an odd voxel before, then by half the overlap on each side; the last patch is aligned to the end, of each
    patch the centre counts, and later patches win. A network whose output is smaller than its patch gets the margin
    that it does not return as padding, an odd voxel before. If some axis of the image is shorter than the crop, crop
    and stride shrink in proportion, to a multiple of what the network takes.

    Args:
        image_size_zyx: size of the image in voxels.
        inference: the config's crop size, stride, padding and stitching.
        network: what the network asks of its patches.

    Raises:
        InputError: crop size, stride and network do not fit each other; the image is smaller than the network's
            minimum; an odd overlap with ``crop``; padding is needed where the config says ``none``.
    """
    _refuse_contradictions(inference, network)
    zeros_first = inference.effective_stitching == "crop"
    multiples = network.size_multiple_zyx
    extended = _triple(
        size + (-size % multiple if zeros_first else 0)
        for size, multiple in zip(image_size_zyx, multiples, strict=True)
    )
    if _any_larger(network.minimum_size_zyx, extended):
        raise InputError(
            f"Input image has {_text(image_size_zyx)} voxels (z × y × x), but the network needs at least "
            f"{_text(network.minimum_size_zyx)}"
        )
    plan_axis = _plan_crop_axis if zeros_first else _plan_average_axis
    strides = inference.stride_zyx or network.output_size_zyx
    z, y, x = (
        plan_axis(*sizes)
        for sizes in zip(
            image_size_zyx, multiples, inference.crop_size_zyx, strides, network.output_size_zyx, strict=True
        )
    )
    grid_mode = "constant" if inference.padding == "zero" else inference.padding
    steps = (
        PaddingStep("constant" if zeros_first else grid_mode, tuple(axis.first_padding for axis in (z, y, x))),
        PaddingStep(grid_mode, tuple(axis.grid_padding for axis in (z, y, x))),
    )
    needed = tuple(step for step in steps if any(map(any, step.widths_zyx)))
    if needed and inference.padding == "none":
        raise InputError(
            f"Input image of {_text(image_size_zyx)} voxels (z × y × x) needs padding for patches of "
            f"{_text([z.crop, y.crop, x.crop])} at stride {_text([z.stride, y.stride, x.stride])}, but "
            "inference.padding is none; choose edge or zero"
        )
    return TilingPlan(image_size_zyx, (z, y, x), needed)


def _refuse_contradictions(inference: InferenceConfig, network: NetworkGeometry) -> None:
    crop, output = inference.crop_size_zyx, network.output_size_zyx
    if any(size % multiple for size, multiple in zip(crop, network.size_multiple_zyx, strict=True)):
        raise InputError(
            f"inference.crop_size_zyx {_text(crop)} is no multiple of {_text(network.size_multiple_zyx)}, which the "
            "network needs; change it"
        )
    if _any_larger(network.minimum_size_zyx, crop):
        raise InputError(
            f"inference.crop_size_zyx {_text(crop)} is below the network's minimum "
            f"{_text(network.minimum_size_zyx)}; enlarge it"
        )
    if _any_larger(output, crop):
        raise InputError(
            f"The network's output {_text(output)} is larger than its patch {_text(crop)}; this cannot be stitched"
        )
    if inference.stride_zyx is not None and _any_larger(inference.stride_zyx, output):
        raise InputError(
            f"inference.stride_zyx {_text(inference.stride_zyx)} is larger than the network's output {_text(output)} "
            f"for a patch of {_text(crop)}, so that voxels would be skipped; use at most the output size"
        )


def _shrink(size: int, multiple: int, crop: int, stride: int, output: int) -> tuple[int, int, int]:
    """Crop, stride and output length for an image of ``size`` voxels; unchanged if it is no shorter than the crop."""
    shrunk = math.ceil(min(crop, size) / multiple) * multiple
    shrunk_output = shrunk - (crop - output)
    if shrunk_output <= 0:
        raise InputError(
            f"Input image is too small: {size} voxels along one axis make a patch of {shrunk}, but the network's "
            f"output is {crop - output} voxels shorter than its patch; give a larger image"
        )
    return shrunk, min(max(1, stride * shrunk // crop), shrunk_output), shrunk_output


def _plan_average_axis(size: int, multiple: int, crop: int, stride: int, output: int) -> AxisPlan:
    crop, stride, output = _shrink(size, multiple, crop, stride, output)
    steps = max(0, math.ceil((size - output) / stride))
    missing = output + steps * stride - size
    before = missing // 2
    tiles = []
    for start in range(0, steps * stride + 1, stride):
        first, end = max(0, start - before), min(size, start - before + output)
        tiles.append(AxisTile(start, slice(first, end), slice(first + before - start, end + before - start)))
    margin = crop - output
    return AxisPlan(
        crop, stride, output, (math.ceil(margin / 2), margin // 2), (before, missing - before), tuple(tiles)
    )


def _plan_crop_axis(size: int, multiple: int, crop: int, stride: int, output: int) -> AxisPlan:
    missing = -size % multiple
    before, extended = math.ceil(missing / 2), size + missing
    crop, stride, output = _shrink(extended, multiple, crop, stride, output)
    if (crop - stride) % 2:
        raise InputError(
            f"stitching crop needs an even overlap of patches, but for an image of {size} voxels along one axis the "
            f"patch is {crop} and the stride {stride}; choose another inference.stride_zyx"
        )
    # A patch that starts at voxel s of the padded image decides the voxels s … s + stride of the extended one.
    last = extended - stride
    starts = [*range(0, last, stride), last]
    half_overlap, margin_before = (crop - stride) // 2, math.ceil((crop - output) / 2)
    tiles = []
    for start, following in zip(starts, [*starts[1:], extended], strict=True):
        first, end = max(0, start - before), min(size, following - before)
        if first < end:
            shift = before - start + half_overlap - margin_before
            tiles.append(AxisTile(start, slice(first, end), slice(first + shift, end + shift)))
    return AxisPlan(crop, stride, output, (before, missing - before), (half_overlap, half_overlap), tuple(tiles))


def _triple(values: Iterator[int]) -> SizeZYX:
    z, y, x = values
    return z, y, x


def _any_larger(sizes: Sequence[int], limits: Sequence[int]) -> bool:
    return any(size > limit for size, limit in zip(sizes, limits, strict=True))


def _text(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes))
