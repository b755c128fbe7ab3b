"""The tiling plan: what it promises for every size of image, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innereye_core.config import InferenceConfig
from innereye_core.errors import InputError
from innereye_core.model import NetworkGeometry, SizeZYX
from innereye_imaging.tiling import plan_tiling


def network(
    output: SizeZYX = (8, 8, 8), multiple: SizeZYX = (1, 1, 1), minimum: SizeZYX = (1, 1, 1)
) -> NetworkGeometry:
    return NetworkGeometry(multiple, minimum, output)


def inference(stitching: str = "average", crop: SizeZYX = (8, 8, 8), **others: Any) -> InferenceConfig:
    return InferenceConfig(crop_size_zyx=crop, stitching=stitching, **others)


@st.composite
def tilings(draw: st.DrawFn) -> tuple[SizeZYX, InferenceConfig, NetworkGeometry]:
    """An image from 1 × 1 × 1 up, with a crop, stride, margin and size multiple that fit each other."""
    stitching = draw(st.sampled_from(["average", "crop", "gaussian"]))
    axes = []
    for _ in range(3):
        multiple = draw(st.sampled_from([1, 2, 4]))
        crop = multiple * draw(st.integers(1, 4))
        # Where a crop shrinks, a smaller stride may leave an odd overlap, which is refused.
        stride = crop if stitching == "crop" else draw(st.integers(1, crop))
        axes.append((draw(st.integers(1, 20)), multiple, crop, stride))
    sizes, multiples, crops, strides = zip(*axes, strict=True)
    config = inference(stitching, crops, stride_zyx=strides)
    return sizes, config, network(crops, multiples)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(tilings())
def test_every_voxel_of_every_image_is_covered(tiling: tuple[SizeZYX, InferenceConfig, NetworkGeometry]) -> None:
    size, config, geometry = tiling
    plan = plan_tiling(size, config, geometry)
    covered = np.zeros(size, int)
    for tile in plan:
        covered[tile.target] += 1
    assert covered.min() >= 1
    if config.effective_stitching == "crop":
        assert covered.max() == 1


@settings(max_examples=150, deadline=None, derandomize=True)
@given(tilings())
def test_every_patch_lies_in_the_padded_image_and_fits_the_network(
    tiling: tuple[SizeZYX, InferenceConfig, NetworkGeometry],
) -> None:
    size, config, geometry = tiling
    plan = plan_tiling(size, config, geometry)
    padded = np.array(size)
    for step in plan.padding:
        padded += np.sum(step.widths_zyx, axis=1)
    tiles = list(plan)
    assert len(tiles) == len(plan)
    for tile in tiles:
        assert (np.add(tile.start_zyx, plan.crop_size_zyx) <= padded).all()
        assert [k.stop - k.start for k in tile.keep] == [t.stop - t.start for t in tile.target]
        assert all(0 <= k.start < k.stop <= output for k, output in zip(tile.keep, plan.output_size_zyx, strict=True))
    assert not np.mod(plan.crop_size_zyx, geometry.size_multiple_zyx).any()


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
