"""The data: what of nilearn's template becomes image and masks."""

from __future__ import annotations

import socket

import numpy as np
import pytest

from innereye_demo.brain import Brain, load_brain


def test_brain_comes_out_of_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        pytest.fail(f"the network was used: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    assert load_brain().t1.voxels.any()


def test_t1_is_what_the_model_config_says_it_is(brain: Brain) -> None:
    assert brain.t1.grid.spacing_xyz_mm == (2.0, 2.0, 2.0)
    assert brain.t1.grid.axis_codes == "RAS"


def test_t1_keeps_the_stored_bytes(brain: Brain) -> None:
    from nilearn.datasets import load_mni152_template

    scaled = load_mni152_template(resolution=1).get_fdata()[::2, ::2, ::2].T

    assert brain.t1.voxels.dtype == np.uint8
    np.testing.assert_array_equal(brain.t1.voxels, np.rint(scaled * 255))


def test_each_voxel_has_its_most_probable_tissue(brain: Brain) -> None:
    from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template

    grey, white = (
        load(resolution=1).get_fdata()[::2, ::2, ::2].T for load in (load_mni152_gm_template, load_mni152_wm_template)
    )
    certain = np.abs(grey - white) > 0.01

    np.testing.assert_array_equal(brain.masks["grey_matter"][grey > 0.51], True)
    np.testing.assert_array_equal(brain.masks["white_matter"][white > 0.51], True)
    np.testing.assert_array_equal((brain.masks["grey_matter"] & (white > grey))[certain], False)
    np.testing.assert_array_equal((brain.masks["white_matter"] & (grey > white))[certain], False)
    assert not brain.masks["grey_matter"][grey + white < 0.3].any()


def test_tissues_do_not_overlap(brain: Brain) -> None:
    assert not (brain.masks["grey_matter"] & brain.masks["white_matter"]).any()


def test_tissue_volumes_are_those_of_an_adult_brain(brain: Brain) -> None:
    litres = {name: np.count_nonzero(mask) * brain.t1.grid.voxel_volume_mm3 / 1e6 for name, mask in brain.masks.items()}

    assert 0.6 < litres["grey_matter"] < 1.2
    assert 0.4 < litres["white_matter"] < 0.8
