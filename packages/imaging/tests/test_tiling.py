"""The tiling plan: what it promises for every size of image, and what it refuses."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from innereye_core.config import InferenceConfig
from innereye_core.errors import InputError
from innereye_core.model import NetworkGeometry, SizeZYX
from innereye_imaging.tiling import TilingPlan, plan_tiling


def network(
    output: SizeZYX = (8, 8, 8), multiple: SizeZYX = (1, 1, 1), minimum: SizeZYX = (1, 1, 1)
) -> NetworkGeometry:
    return NetworkGeometry(multiple, minimum, output)


def inference(stitching: str = "average", crop: SizeZYX = (8, 8, 8), **others: Any) -> InferenceConfig:
    return InferenceConfig(crop_size_zyx=crop, stitching=stitching, **others)


Tiling: TypeAlias = tuple[SizeZYX, InferenceConfig, NetworkGeometry]

PROPERTY = settings(max_examples=300, deadline=None, derandomize=True)


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    """An image from 1 × 1 × 1 up, and a config and network that do not contradict each other."""
    stitching = draw(st.sampled_from(["average", "crop", "gaussian"]))
    step = 2 if stitching == "crop" else 1  # which needs even overlaps
    axes = []
    for _ in range(3):
        multiple = draw(st.sampled_from([1, 2, 4]))
        crop = multiple * draw(st.integers(1, 4))
        margin = draw(st.sampled_from(range(0, crop, step)))
        overlap = margin + draw(st.sampled_from(range(0, crop - margin, step)))
        axes.append((draw(st.integers(1, 20)), multiple, crop, crop - margin, crop - overlap))
    sizes, multiples, crops, outputs, strides = zip(*axes, strict=True)
    padding = draw(st.sampled_from(["edge", "zero", "reflect", "none"]))
    config = inference(stitching, crops, stride_zyx=strides, padding=padding)
    return sizes, config, network(outputs, multiples)


def plan_of(tiling: Tiling) -> TilingPlan:
    """The plan; examples in which the image leaves something odd, nothing, or too little are refused."""
    try:
        return plan_tiling(*tiling)
    except InputError as refusal:
        if not re.search(r"even overlap|is too small|inference\.padding is none", str(refusal)):
            raise
        reject()


@PROPERTY
@given(tilings())
def test_every_voxel_of_every_image_is_covered(tiling: Tiling) -> None:
    plan = plan_of(tiling)
    covered = np.zeros(tiling[0], int)
    for tile in plan:
        covered[tile.target] += 1
    assert covered.min() >= 1
    if tiling[1].effective_stitching == "crop":
        assert covered.max() == 1


@PROPERTY
@given(tilings())
def test_every_patch_lies_in_the_padded_image_and_fits_the_network(tiling: Tiling) -> None:
    plan = plan_of(tiling)
    padded = np.array(tiling[0])
    for step in plan.padding:
        padded += np.sum(step.widths_zyx, axis=1)
    tiles = list(plan)
    assert len(tiles) == len(plan)
    for tile in tiles:
        assert min(tile.start_zyx) >= 0
        assert (np.add(tile.start_zyx, plan.crop_size_zyx) <= padded).all()
        assert [k.stop - k.start for k in tile.keep] == [t.stop - t.start for t in tile.target]
        assert all(0 <= k.start < k.stop <= output for k, output in zip(tile.keep, plan.output_size_zyx, strict=True))
    assert not np.mod(plan.crop_size_zyx, tiling[2].size_multiple_zyx).any()


@PROPERTY
@given(tilings())
def test_a_kept_voxel_of_the_output_is_the_voxel_of_the_image_that_it_decides(tiling: Tiling) -> None:
    """Of each axis: position in the padded image = position in the image + what was added before."""
    plan = plan_of(tiling)
    for axis in plan.axes:
        added_before = axis.first_padding[0] + axis.grid_padding[0]
        # With crop, the margin that the network does not return is cut off together with the overlap.
        margin_before = -(-(axis.crop - axis.output) // 2)
        for tile in axis.tiles:
            assert tile.start + margin_before + tile.keep.start == tile.target.start + added_before


SMALL = st.integers(1, 9)


@PROPERTY
@given(
    sizes=st.tuples(*[st.integers(1, 12)] * 3),
    crops=st.tuples(*[SMALL] * 3),
    strides=st.none() | st.tuples(*[SMALL] * 3),
    outputs=st.tuples(*[SMALL] * 3),
    multiples=st.tuples(*[st.integers(1, 3)] * 3),
    minima=st.tuples(*[st.integers(1, 5)] * 3),
    stitching=st.sampled_from(["average", "crop", "gaussian"]),
    padding=st.sampled_from(["edge", "none", "linear_ramp"]),
)
def test_whatever_contradicts_itself_is_refused_and_all_else_is_covered(
    sizes: SizeZYX, crops: SizeZYX, strides: SizeZYX | None, outputs: SizeZYX, multiples: SizeZYX, minima: SizeZYX,
    stitching: str, padding: str,
) -> None:  # fmt: skip
    try:
        config = inference(stitching, crops, stride_zyx=strides, padding=padding)
        plan = plan_tiling(sizes, config, network(outputs, multiples, minima))
    except (InputError, ValidationError):
        return
    covered = np.zeros(sizes, bool)
    for tile in plan:
        covered[tile.target] = True
    assert covered.all()
    assert not np.mod(plan.crop_size_zyx, multiples).any()


def test_average_pads_only_what_the_grid_needs_the_odd_voxel_after() -> None:
    plan = plan_tiling((13, 8, 24), inference(stride_zyx=(8, 4, 8)), network())
    assert [axis.grid_padding for axis in plan.axes] == [(1, 2), (0, 0), (0, 0)]
    assert [len(axis.tiles) for axis in plan.axes] == [2, 1, 3]


def test_crop_pads_zeros_to_the_multiple_before_and_half_the_overlap_around() -> None:
    plan = plan_tiling((13, 16, 17), inference("crop", stride_zyx=(8, 4, 6)), network(multiple=(4, 4, 4)))
    zeros, overlap = plan.padding
    assert (zeros.mode, zeros.widths_zyx) == ("constant", ((2, 1), (0, 0), (2, 1)))
    assert (overlap.mode, overlap.widths_zyx) == ("edge", ((0, 0), (2, 2), (1, 1)))


def test_crop_aligns_the_last_patch_to_the_end_and_lets_it_win() -> None:
    plan = plan_tiling((11, 8, 8), inference("crop", stride_zyx=(4, 8, 8)), network())
    assert [(tile.start, tile.target) for tile in plan.axes[0].tiles] == [
        (0, slice(0, 4)),
        (4, slice(4, 7)),
        (7, slice(7, 11)),
    ]


def test_a_short_axis_shrinks_crop_and_stride_to_the_size_multiple() -> None:
    plan = plan_tiling((5, 20, 20), inference(crop=(16, 16, 16), stride_zyx=(8, 16, 5)), network((16,) * 3, (4,) * 3))
    assert plan.crop_size_zyx == (8, 16, 16)
    assert [axis.stride for axis in plan.axes] == [4, 16, 5]
    assert plan.axes[0].grid_padding == (1, 2)


def test_the_shrunk_stride_is_at_least_1() -> None:
    plan = plan_tiling((4, 64, 64), inference(crop=(64, 64, 64), stride_zyx=(8, 64, 64)), network((64,) * 3, (4,) * 3))
    assert (plan.axes[0].crop, plan.axes[0].stride) == (4, 1)


def test_the_shrunk_stride_leaves_no_gap_between_outputs() -> None:
    plan = plan_tiling((4, 8, 8), inference(stride_zyx=(6, 8, 8)), network(output=(6, 8, 8)))
    assert (plan.axes[0].crop, plan.axes[0].output, plan.axes[0].stride) == (4, 2, 2)


def test_without_a_stride_the_networks_output_is_the_stride() -> None:
    plan = plan_tiling((12, 12, 12), inference(), network(output=(4, 6, 8)))
    assert [axis.stride for axis in plan.axes] == [4, 6, 8]


def test_average_pads_the_margin_that_the_network_does_not_return_the_odd_voxel_before() -> None:
    plan = plan_tiling((8, 8, 8), inference(), network(output=(4, 5, 8)))
    assert plan.padding[0].widths_zyx == ((2, 2), (2, 1), (0, 0))


@pytest.mark.parametrize("stitching", ["average", "gaussian"])
def test_an_image_below_the_networks_minimum_is_refused_with_sizes(stitching: str) -> None:
    with pytest.raises(InputError, match=r"Input image has 3 × 9 × 9 voxels .* needs at least 4 × 4 × 4"):
        plan_tiling((3, 9, 9), inference(stitching), network(multiple=(4,) * 3, minimum=(4,) * 3))


def test_crop_compares_with_the_minimum_after_padding_to_the_multiple() -> None:
    plan_tiling((3, 9, 9), inference("crop"), network(multiple=(4,) * 3, minimum=(4,) * 3))
    with pytest.raises(InputError, match="needs at least 8 × 8 × 8"):
        plan_tiling((3, 9, 9), inference("crop"), network(multiple=(4,) * 3, minimum=(8,) * 3))


@pytest.mark.parametrize(
    ("config", "geometry", "problem"),
    [
        (inference(), network(multiple=(3, 1, 1)), "8 × 8 × 8 is no multiple of 3 × 1 × 1"),
        (inference(), network(minimum=(9, 1, 1)), "8 × 8 × 8 is below the network's minimum 9 × 1 × 1"),
        (inference(), network(output=(9, 8, 8)), "output 9 × 8 × 8 is larger than its patch"),
        (
            inference(stride_zyx=(6, 8, 8)),
            network(output=(4, 8, 8)),
            "stride_zyx 6 × 8 × 8 is larger than the network's",
        ),
        (inference("crop"), network(output=(5, 8, 8)), "needs an even overlap"),
    ],
)
def test_config_and_network_that_contradict_each_other_are_refused(
    config: InferenceConfig, geometry: NetworkGeometry, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        plan_tiling((16, 16, 16), config, geometry)


def test_an_overlap_that_gets_odd_by_shrinking_is_refused() -> None:
    with pytest.raises(InputError, match="for an image of 6 voxels along one axis the patch is 6 and the stride 3"):
        plan_tiling((6, 8, 8), inference("crop", stride_zyx=(4, 8, 8)), network())


def test_an_image_that_leaves_the_network_no_output_is_refused() -> None:
    with pytest.raises(InputError, match="Input image is too small: 3 voxels along one axis make a patch of 3, but"):
        plan_tiling((3, 8, 8), inference(), network(output=(4, 8, 8)))


@pytest.mark.parametrize(
    ("size", "stitching", "stride"),
    [((9, 8, 8), "average", (8, 8, 8)), ((8, 8, 8), "crop", (4, 8, 8)), ((7, 8, 8), "crop", (8, 8, 8))],
    ids=["grid", "overlap", "multiple"],
)
def test_padding_none_is_refused_where_padding_is_needed(size: SizeZYX, stitching: str, stride: SizeZYX) -> None:
    with pytest.raises(InputError, match=r"inference\.padding is none; choose edge or zero"):
        plan_tiling(size, inference(stitching, stride_zyx=stride, padding="none"), network(multiple=(4, 4, 4)))


@pytest.mark.parametrize("stitching", ["average", "crop", "gaussian"])
def test_padding_none_is_accepted_where_none_is_needed(stitching: str) -> None:
    assert plan_tiling((16, 8, 8), inference(stitching, padding="none"), network()).padding == ()
