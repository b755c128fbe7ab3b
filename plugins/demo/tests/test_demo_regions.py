"""What is held out and what is trained on: no voxel in both, and distance between them."""

from __future__ import annotations

import numpy as np
import pytest

from innereye_demo.brain import Brain
from innereye_demo.regions import Slab, splits
from innereye_demo.training import Schedule


@pytest.mark.parametrize("parts", [2, 3, 4, 5])
def test_each_slice_is_held_out_once(brain: Brain, parts: int) -> None:
    held_out = [index for split in splits(brain, parts) for index in range(split.held_out.start, split.held_out.stop)]

    assert held_out == list(range(brain.t1.voxels.shape[1]))


@pytest.mark.parametrize("parts", [2, 3, 4, 5])
def test_each_held_out_slab_has_about_as_much_of_the_brain(brain: Brain, parts: int) -> None:
    tissue = brain.masks["grey_matter"] | brain.masks["white_matter"]
    depths = [
        np.count_nonzero(tissue[:, split.held_out.start : split.held_out.stop].any(axis=(0, 2)))
        for split in splits(brain, parts)
    ]

    assert max(depths) - min(depths) <= 1


@pytest.mark.parametrize("parts", [2, 3, 4, 5])
def test_four_slices_lie_between_what_is_held_out_and_what_is_trained_on(brain: Brain, parts: int) -> None:
    for split in splits(brain, parts):
        for slab in split.training:
            assert slab.start - split.held_out.stop == 4 or split.held_out.start - slab.stop == 4


@pytest.mark.parametrize("parts", [2, 3, 4, 5])
def test_every_training_slab_holds_a_patch(brain: Brain, parts: int) -> None:
    depth = Schedule().patch_size_zyx[1]

    assert all(slab.stop - slab.start >= depth for split in splits(brain, parts) for slab in split.training)


def test_cut_leaves_every_voxel_at_its_place_in_space(brain: Brain) -> None:
    cut = Slab("front", 74, 117).cut(brain.t1)

    z, y, x = 40, 3, 50
    np.testing.assert_array_equal(cut.affine @ (x, y, z, 1), brain.t1.affine @ (x, y + 74, z, 1))
    assert cut.voxels[z, y, x] == brain.t1.voxels[z, y + 74, x]
    assert cut.voxels.shape == (95, 43, 99)


def test_range_is_that_of_the_slices(brain: Brain) -> None:
    assert Slab("front", 74, 117).range_mm(brain.t1.grid) == "+14 to +98 mm"
