"""From a network's scores to probabilities, and what is refused of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special

from innereye_core.config import ModelConfig
from innereye_core.errors import InputError, IntegrityError
from innereye_imaging.geometry import Grid
from innereye_imaging.inference import activate, common_geometry
from innereye_imaging.normalization import IntensityMap
from innereye_imaging.pipeline import segment
from innereye_imaging.study import Study

SCORES = np.random.default_rng(0).normal(0, 30, (2, 3, 4, 5, 6)).astype(np.float32)
GRID = Grid((8, 8, 8), np.eye(4))
STUDY = Study((np.random.default_rng(0).random((8, 8, 8)),), (IntensityMap(),), GRID, GRID, GRID, True, ())


def test_softmax_is_over_classes() -> None:
    np.testing.assert_allclose(activate(SCORES, "softmax"), scipy.special.softmax(SCORES, axis=1), atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_sigmoid_is_for_each_class_and_does_not_overflow() -> None:
    scores = np.concatenate([SCORES.ravel(), [-1000, 1000, 0]]).astype(np.float32).reshape(1, 1, -1)
    np.testing.assert_allclose(activate(scores, "sigmoid"), scipy.special.expit(scores), atol=1e-6)


def test_none_leaves_probabilities_alone() -> None:
    probabilities = np.random.default_rng(0).random((2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(activate(probabilities, "none"), probabilities)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_scores_of_half_precision_give_single_precision(activation: Any) -> None:
    assert activate(SCORES.astype(np.float16), activation).dtype == np.float32


def test_none_refuses_what_is_no_probability() -> None:
    with pytest.raises(InputError, match=r"network.activation is none, but .* set it to softmax or sigmoid"):
        activate(SCORES, "none")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_nan_and_infinite_scores_are_refused(value: float, activation: Any) -> None:
    scores = SCORES.copy()
    scores[1, 2, 0, 0, 0] = value
    with pytest.raises(IntegrityError, match="NaN or infinite scores"):
        activate(scores, activation)


def test_a_network_of_another_number_of_classes_is_refused(
    make_config: Callable[..., ModelConfig], numpy_network: Any
) -> None:
    three_classes = numpy_network(lambda patches: np.repeat(patches, 3, axis=1) / 3)
    with pytest.raises(InputError, match=r"shape \(1, 3, 4, 4, 4\) instead of \(1, 2, 4, 4, 4\)"):
        segment(STUDY, [three_classes], make_config())


def test_a_network_whose_output_is_not_as_large_as_it_said_is_refused(
    make_config: Callable[..., ModelConfig], numpy_network: Any, identity: Any
) -> None:
    shrinking = numpy_network(lambda patches: identity(patches)[:, :, :3])
    with pytest.raises(InputError, match=r"shape \(1, 2, 3, 4, 4\) instead of"):
        segment(STUDY, [shrinking], make_config())


def test_members_of_an_ensemble_must_take_the_same_patches(numpy_network: Any, identity: Any) -> None:
    members = [numpy_network(identity), numpy_network(identity, multiple_zyx=(2, 2, 2))]
    with pytest.raises(InputError, match="members differ"):
        common_geometry(members)


def test_an_empty_ensemble_is_refused() -> None:
    with pytest.raises(InputError, match="no network was loaded"):
        common_geometry([])


def test_only_the_region_that_is_kept_is_asked_for(
    make_config: Callable[..., ModelConfig], numpy_network: Any, identity: Any
) -> None:
    """With half overlap the centre of each patch survives, so that a clever runtime may leave out the rest."""
    asked = []

    class Recording(numpy_network):  # type: ignore[misc]
        def evaluate(self, patches: np.ndarray, keep: Any = None) -> np.ndarray:
            asked.append(keep)
            scores: np.ndarray = super().evaluate(patches, keep)
            return scores

    segment(STUDY, [Recording(identity)], make_config(stitching="crop", stride_zyx=(2, 4, 4)))
    assert all(keep is not None and keep[0] == slice(1, 3) for keep in asked)


def test_the_last_batch_may_be_smaller(
    make_config: Callable[..., ModelConfig], numpy_network: Any, identity: Any
) -> None:
    network = numpy_network(identity)
    segment(STUDY, [network], make_config(batch_size=3))
    assert [shape[0] for shape in network.patch_shapes] == [3, 3, 2]
