"""Segmenting a prepared study: the order of steps, ensembles, and the way back to the input's grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage

from innereye_core.config import (
    LargestComponent,
    ModelConfig,
    PostprocessingConfig,
    SliceExclusionRule,
    SummedProbabilityRule,
)
from innereye_imaging.geometry import Grid
from innereye_imaging.normalization import IntensityMap
from innereye_imaging.pipeline import prepare_study, segment
from innereye_imaging.study import Study

MakeConfig = Callable[..., ModelConfig]
Write = Callable[..., Path]

RANDOM = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)


def a_study(*voxels: np.ndarray, spacing_zyx_mm: tuple[float, float, float] = (1, 1, 1)) -> Study:
    grid = Grid(voxels[0].shape, np.diag([*spacing_zyx_mm[::-1], 1.0]))
    return Study(voxels, (IntensityMap(),) * len(voxels), grid, grid, grid, True, ())


def channels_as_probabilities(patches: np.ndarray) -> np.ndarray:
    """Every input channel is the probability of one class; the background has the rest."""
    return np.concatenate([1 - patches.sum(axis=1, keepdims=True), patches], axis=1)


def three_structures() -> list[np.ndarray]:
    """Probabilities of three structures that sum to less than 1."""
    parts = np.random.default_rng(1).dirichlet((1, 1, 1, 1), (6, 7, 8)).astype(np.float32)
    return [parts[..., i] for i in range(3)]


def test_labels_are_the_most_probable_class(make_config: MakeConfig, numpy_network: Any, identity: Any) -> None:
    found = segment(a_study(RANDOM), [numpy_network(identity)], make_config())
    np.testing.assert_array_equal(found.labels, RANDOM > 0.5)
    assert found.labels.dtype == np.uint8
    assert found.posteriors is None


def test_an_ensemble_averages_the_posteriors_of_all_members(
    make_config: MakeConfig, numpy_network: Any, identity: Any
) -> None:
    members = [numpy_network(lambda patches, power=power: identity(patches**power)) for power in (1, 2, 3)]
    found = segment(a_study(RANDOM), members, make_config(), posteriors=True)
    mean = (RANDOM + RANDOM**2 + RANDOM**3) / 3
    np.testing.assert_allclose(found.posteriors, [1 - mean, mean], atol=1e-6)
    np.testing.assert_array_equal(found.labels, mean > 0.5)


def test_smoothing_comes_before_labels_and_is_in_the_posteriors(
    make_config: MakeConfig, numpy_network: Any, identity: Any
) -> None:
    rules = PostprocessingConfig(posterior_smoothing_zyx_mm=(2.0, 1.0, 1.0))
    study = a_study(RANDOM, spacing_zyx_mm=(2, 1, 0.5))
    config = make_config(postprocessing=rules)
    found = segment(study, [numpy_network(identity)], config, posteriors=True)
    smooth = scipy.ndimage.gaussian_filter(RANDOM, (1, 1, 2))
    np.testing.assert_allclose(found.posteriors, [1 - smooth, smooth], atol=1e-6)
    np.testing.assert_array_equal(found.labels, smooth > 0.5)
    streamed = segment(study, [numpy_network(identity)], config)
    assert streamed.posteriors is None
    np.testing.assert_array_equal(streamed.labels, found.labels)


@pytest.mark.parametrize("smoothing", [None, (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("stitching", ["average", "crop"])
def test_summed_probability_rules_see_the_final_posteriors(
    make_config: MakeConfig, numpy_network: Any, smoothing: tuple[float, float, float] | None, stitching: str
) -> None:
    rule = SummedProbabilityRule("one", "two", "three")
    config = make_config(
        structures=("one", "two", "three"),
        channels=("a", "b", "c"),
        postprocessing=PostprocessingConfig(posterior_smoothing_zyx_mm=smoothing, summed_probability_rules=(rule,)),
        stitching=stitching,
        stride_zyx=(2, 2, 4),
    )
    found = segment(a_study(*three_structures()), [numpy_network(channels_as_probabilities)], config, posteriors=True)
    assert found.posteriors is not None
    _, one, two, three = found.posteriors
    expected = found.posteriors.argmax(axis=0)
    replaced = (expected == 3) & (one + two > three)
    expected[replaced] = np.where(one >= two, 1, 2)[replaced]
    assert replaced.any()
    np.testing.assert_array_equal(found.labels, expected)


def test_components_come_before_slice_exclusion(make_config: MakeConfig, numpy_network: Any) -> None:
    """The stray voxel of the lower structure would claim the slices above if it were not removed first."""
    lower, higher = np.zeros((2, 6, 3, 3), np.float32)
    lower[:3, 1] = 1
    higher[3:, 1] = 1
    lower[5, 0, 0] = higher[5, 0, 2] = 1
    rules = PostprocessingConfig(
        largest_component=(LargestComponent("lower"),),
        slice_exclusion_rules=(SliceExclusionRule("higher", "lower", higher_dominates=False),),
    )
    config = make_config((6, 3, 3), ("lower", "higher"), ("a", "b"), postprocessing=rules)
    found = segment(a_study(lower, higher), [numpy_network(channels_as_probabilities, (6, 3, 3))], config).labels
    assert found[5, 0, 0] == 0
    assert (found == 2).sum() == 10


def test_posteriors_are_those_before_rules_on_labels(
    make_config: MakeConfig, numpy_network: Any, identity: Any
) -> None:
    rules = PostprocessingConfig(largest_component=(LargestComponent("organ"),))
    found = segment(a_study(RANDOM), [numpy_network(identity)], make_config(postprocessing=rules), posteriors=True)
    assert found.posteriors is not None
    np.testing.assert_allclose(found.posteriors[1], RANDOM, atol=1e-6)
    assert found.labels.sum() < (RANDOM > 0.5).sum()


def test_sigmoid_lets_the_most_probable_class_win(make_config: MakeConfig, numpy_network: Any) -> None:
    scores = np.array([-1.0, -3.0, 2.0], np.float32).reshape(1, 3, 1, 1, 1)
    network = numpy_network(lambda patches: np.broadcast_to(scores, (len(patches), 3, *patches.shape[2:])))
    found = segment(
        a_study(RANDOM), [network], make_config(structures=("a", "b"), activation="sigmoid"), posteriors=True
    )
    assert (found.labels == 2).all()
    assert found.posteriors is not None
    np.testing.assert_allclose(found.posteriors[:, 0, 0, 0], 1 / (1 + np.exp(-scores.ravel())), atol=1e-6)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SAL", "PIR"])
def test_results_lie_on_the_voxels_of_the_file_whatever_the_networks_orientation(
    write_nifti: Write, make_config: MakeConfig, installed: Any, numpy_network: Any, identity: Any, codes: str
) -> None:
    config = make_config(input={"orientation": codes})
    study = prepare_study([write_nifti(RANDOM)], config, installed)
    found = segment(study, [numpy_network(identity)], config, posteriors=True)
    np.testing.assert_array_equal(found.labels, RANDOM > 0.5)
    assert found.posteriors is not None
    np.testing.assert_allclose(found.posteriors[1], RANDOM, atol=1e-6)


def test_the_network_sees_its_own_orientation(
    write_nifti: Write, make_config: MakeConfig, installed: Any, numpy_network: Any
) -> None:
    """What is lowest in the patient comes first for the network, though this file counts from the top."""
    config = make_config((6, 7, 8), input={"orientation": "LPS"})

    def two_lowest_slices(patches: np.ndarray) -> np.ndarray:
        organ = np.zeros_like(patches)
        organ[:, :, :2] = 1
        return np.concatenate([1 - organ, organ], axis=1)

    study = prepare_study([write_nifti(RANDOM, np.diag([-1.0, -1.0, -1.0, 1.0]))], config, installed)
    labels = segment(study, [numpy_network(two_lowest_slices, (6, 7, 8))], config).labels
    assert labels[-2:].all()
    assert not labels[:-2].any()


def test_a_resampled_study_gives_results_on_the_files_grid(
    write_nifti: Write, make_config: MakeConfig, installed: Any, numpy_network: Any, identity: Any
) -> None:
    ball = (np.linalg.norm(np.indices((16, 16, 16)) - 7.5, axis=0) < 5).astype(np.float32)
    config = make_config(
        (8, 8, 8), input={"spacing_xyz_mm": (0.8, 0.8, 1.5), "on_mismatch": "resample", "orientation": "RAS"}
    )
    study = prepare_study([write_nifti(ball)], config, installed)
    assert study.working_grid.size_zyx == (11, 20, 20)
    found = segment(study, [numpy_network(identity, (8, 8, 8))], config, posteriors=True)
    assert found.labels.shape == ball.shape
    assert 2 * (found.labels * ball).sum() / (found.labels.sum() + ball.sum()) > 0.95
    assert found.posteriors is not None
    np.testing.assert_allclose(found.posteriors.sum(axis=0), 1, atol=1e-5)
    assert np.abs(found.posteriors[1] - ball).mean() < 0.05


def test_progress_counts_patches(make_config: MakeConfig, numpy_network: Any, identity: Any) -> None:
    steps = []

    class Watching:
        @contextmanager
        def track(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
            steps.append(total)
            yield lambda done: steps.append(-done)

    segment(a_study(RANDOM), [numpy_network(identity)], make_config(), progress=Watching())
    assert steps == [8, *[-1] * 8]


def test_a_study_can_be_segmented_by_one_network_after_another(
    make_config: MakeConfig, numpy_network: Any, identity: Any
) -> None:
    study = a_study(RANDOM)
    first = segment(study, [numpy_network(identity)], make_config()).labels
    inverted = segment(study, [numpy_network(lambda patches: identity(1 - patches))], make_config()).labels
    np.testing.assert_array_equal(first + inverted, np.ones_like(first))
