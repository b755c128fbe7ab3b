"""Entropy and disagreement: in closed form, and of the posteriors that a segmentation has."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from innereye_core.config import ModelConfig, PostprocessingConfig
from innereye_imaging.geometry import Grid
from innereye_imaging.normalization import IntensityMap
from innereye_imaging.pipeline import prepare_study, segment
from innereye_imaging.study import Study
from innereye_imaging.uncertainty import normalized_disagreement, normalized_entropy

MakeConfig = Callable[..., ModelConfig]

RANDOM = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)


def column(*posteriors: float) -> np.ndarray:
    """The posteriors of one voxel."""
    return np.array(posteriors, np.float32).reshape(-1, 1, 1, 1)


def a_study(voxels: np.ndarray) -> Study:
    grid = Grid(voxels.shape, np.eye(4))
    return Study((voxels,), (IntensityMap(),), grid, grid, grid, True, ())


def entropy_in_double_precision(posteriors: np.ndarray) -> np.ndarray:
    """Textbook: - sum of p log p, over the logarithm of the number of classes."""
    p = posteriors.astype(np.float64)
    return -np.sum(np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0), axis=0) / math.log(len(p))


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("posteriors", "expected"),
    [
        ((1, 0), 0),
        ((0.5, 0.5), 1),
        ((0.25, 0.25, 0.25, 0.25), 1),
        ((0.5, 0.5, 0, 0), 0.5),
        ((0.75, 0.25), 2 - 0.75 * math.log2(3)),
    ],
)
def test_entropy_of_known_distributions(posteriors: tuple[float, ...], expected: float) -> None:
    assert normalized_entropy(column(*posteriors)).item() == pytest.approx(expected, abs=1e-6)


def test_entropy_is_between_0_and_1_in_single_precision() -> None:
    posteriors = np.random.default_rng(1).dirichlet([0.01] * 7, (9, 10, 11)).astype(np.float32).transpose(3, 0, 1, 2)
    entropy = normalized_entropy(posteriors)
    assert entropy.dtype == np.float32
    assert (entropy.min(), entropy.max()) >= (0, 0)
    assert entropy.max() <= 1
    np.testing.assert_allclose(entropy, entropy_in_double_precision(posteriors), atol=1e-5)


def test_posteriors_that_do_not_sum_to_1_are_made_to() -> None:
    """As those of a sigmoid."""
    assert normalized_entropy(column(0.9, 0.9)).item() == pytest.approx(1)
    assert normalized_entropy(column(0.6, 0.2)).item() == pytest.approx(2 - 0.75 * math.log2(3), abs=1e-6)


def test_where_no_class_has_any_probability_nothing_is_known() -> None:
    assert normalized_entropy(column(0, 0, 0)).item() == pytest.approx(1)


def test_members_that_are_sure_of_different_classes_disagree_completely() -> None:
    assert normalized_disagreement(np.stack([column(1, 0), column(0, 1)])).item() == pytest.approx(1)


def test_members_that_are_equally_unsure_do_not_disagree() -> None:
    assert normalized_disagreement(np.stack([column(0.5, 0.5)] * 3)).item() == pytest.approx(0, abs=1e-6)


def test_disagreement_is_the_entropy_of_the_mean_less_the_mean_entropy() -> None:
    members = np.random.default_rng(2).dirichlet([0.5] * 4, (3, 5, 6, 7)).astype(np.float32).transpose(0, 4, 1, 2, 3)
    expected = entropy_in_double_precision(members.mean(axis=0))
    expected -= np.mean([entropy_in_double_precision(member) for member in members], axis=0)
    np.testing.assert_allclose(normalized_disagreement(members), expected, atol=1e-5)


def test_maps_are_computed_in_the_array_type_of_the_posteriors() -> None:
    torch = pytest.importorskip("torch")
    posteriors = np.random.default_rng(3).dirichlet([1, 1, 1], (2, 3, 4, 5)).astype(np.float32).transpose(0, 4, 1, 2, 3)
    found = (
        normalized_entropy(torch.from_numpy(posteriors[0].copy())),
        normalized_disagreement(torch.from_numpy(posteriors.copy())),
    )
    assert all(isinstance(values, torch.Tensor) for values in found)
    np.testing.assert_allclose(found[0], normalized_entropy(posteriors[0]), atol=1e-6)
    np.testing.assert_allclose(found[1], normalized_disagreement(posteriors), atol=1e-6)


# --- of a segmentation ------------------------------------------------------------------------------------------------


def power(identity: Any, exponent: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda patches: identity(patches**exponent)


@pytest.mark.parametrize("stitching", ["average", "crop", "gaussian"])
@pytest.mark.parametrize("smoothing", [None, (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("with_posteriors", [False, True])
def test_entropy_is_that_of_the_posteriors_that_would_be_written(
    make_config: MakeConfig, numpy_network: Any, identity: Any, stitching: str, smoothing: Any, with_posteriors: bool
) -> None:
    config = make_config(
        stitching=stitching,
        stride_zyx=(2, 2, 2),
        postprocessing=PostprocessingConfig(posterior_smoothing_zyx_mm=smoothing),
    )
    posteriors = segment(a_study(RANDOM), [numpy_network(identity)], config, posteriors=True).posteriors
    found = segment(
        a_study(RANDOM), [numpy_network(identity)], config, posteriors=with_posteriors, uncertainty=True
    ).uncertainty
    assert posteriors is not None
    assert found is not None
    assert found.entropy.dtype == np.float32
    np.testing.assert_allclose(found.entropy, entropy_in_double_precision(posteriors), atol=1e-5)
    assert found.disagreement is None


@pytest.mark.parametrize("stitching", ["average", "crop", "gaussian"])
def test_disagreement_is_that_of_the_members_alone(
    make_config: MakeConfig, numpy_network: Any, identity: Any, stitching: str
) -> None:
    """Each member's posteriors are what it gives as a model of its own, also where patches overlap."""
    config = make_config(stitching=stitching, stride_zyx=(2, 2, 2))
    members = [numpy_network(power(identity, exponent)) for exponent in (1, 2, 5)]
    alone = [segment(a_study(RANDOM), [member], config, posteriors=True).posteriors for member in members]
    found = segment(a_study(RANDOM), members, config, uncertainty=True).uncertainty
    assert found is not None
    assert found.disagreement is not None
    np.testing.assert_allclose(found.disagreement, normalized_disagreement(np.stack(alone)), atol=1e-5)
    np.testing.assert_allclose(found.entropy, normalized_entropy(np.mean(alone, axis=0)), atol=1e-5)
    assert (found.disagreement <= found.entropy + 1e-6).all()
    assert found.disagreement.max() > 0.05


def test_identical_members_do_not_disagree(make_config: MakeConfig, numpy_network: Any, identity: Any) -> None:
    members = [numpy_network(identity) for _ in range(3)]
    found = segment(a_study(RANDOM), members, make_config(stride_zyx=(2, 2, 2)), uncertainty=True).uncertainty
    assert found is not None
    np.testing.assert_allclose(found.disagreement, 0, atol=1e-6)
    assert found.entropy.max() > 0.9


@pytest.mark.parametrize("stitching", ["average", "crop", "gaussian"])
def test_asking_for_uncertainty_changes_nothing_else(
    make_config: MakeConfig, numpy_network: Any, identity: Any, stitching: str
) -> None:
    config = make_config(stitching=stitching, stride_zyx=(2, 2, 2), batch_size=3)
    members = [numpy_network(power(identity, exponent)) for exponent in (1, 2, 5)]
    plain = segment(a_study(RANDOM), members, config, posteriors=True)
    asked = segment(a_study(RANDOM), members, config, posteriors=True, uncertainty=True)
    np.testing.assert_array_equal(plain.labels, asked.labels)
    np.testing.assert_array_equal(plain.posteriors, asked.posteriors)


@pytest.mark.parametrize(
    "input", [{"orientation": "RAS"}, {"spacing_xyz_mm": (0.7, 0.7, 1.5), "on_mismatch": "resample"}]
)
def test_maps_lie_on_the_voxels_of_the_file(
    write_nifti: Callable[..., Path],
    make_config: MakeConfig,
    installed: Any,
    numpy_network: Any,
    identity: Any,
    input: dict[str, Any],
) -> None:
    config = make_config(input=input)
    study = prepare_study([write_nifti(RANDOM)], config, installed)
    members = [numpy_network(power(identity, exponent)) for exponent in (1, 2)]
    found = segment(study, members, config, posteriors=True, uncertainty=True)
    streamed = segment(study, members, config, uncertainty=True)
    assert found.uncertainty is not None
    assert streamed.uncertainty is not None
    assert found.posteriors is not None
    assert streamed.posteriors is None
    np.testing.assert_allclose(found.uncertainty.entropy, normalized_entropy(found.posteriors), atol=1e-6)
    np.testing.assert_allclose(streamed.uncertainty.entropy, found.uncertainty.entropy, atol=1e-6)
    assert found.uncertainty.disagreement is not None
    assert found.uncertainty.disagreement.shape == RANDOM.shape
    if "orientation" in input:
        expected = normalized_disagreement(np.stack([[1 - RANDOM, RANDOM], [1 - RANDOM**2, RANDOM**2]]))
        np.testing.assert_allclose(found.uncertainty.disagreement, expected, atol=1e-5)


def test_maps_of_networks_that_return_tensors(make_config: MakeConfig, numpy_network: Any, identity: Any) -> None:
    torch = pytest.importorskip("torch")
    config = make_config(stride_zyx=(2, 2, 2))
    functions = [power(identity, exponent) for exponent in (1, 3)]
    tensors = [
        numpy_network(lambda patches, function=function: torch.from_numpy(function(patches))) for function in functions
    ]
    found = segment(a_study(RANDOM), tensors, config, uncertainty=True)
    expected = segment(a_study(RANDOM), [numpy_network(function) for function in functions], config, uncertainty=True)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.uncertainty is not None
    assert expected.uncertainty is not None
    np.testing.assert_allclose(found.uncertainty.entropy, expected.uncertainty.entropy, atol=1e-6)
    np.testing.assert_allclose(found.uncertainty.disagreement, expected.uncertainty.disagreement, atol=1e-6)


def test_an_image_of_one_voxel_has_maps_of_one_voxel(
    make_config: MakeConfig, numpy_network: Any, identity: Any
) -> None:
    members = [numpy_network(identity), numpy_network(power(identity, 2))]
    found = segment(a_study(np.full((1, 1, 1), 0.5, np.float32)), members, make_config(), uncertainty=True).uncertainty
    assert found is not None
    assert found.entropy.shape == (1, 1, 1)
    assert found.disagreement is not None
    assert found.disagreement.shape == (1, 1, 1)


@pytest.mark.parametrize("stitching", ["average", "crop", "gaussian"])
def test_uncertainty_holds_nothing_as_large_as_classes_times_image(
    make_config: MakeConfig, numpy_network: Any, stitching: str
) -> None:
    classes, size = 20, (96, 32, 32)
    image = np.random.default_rng(0).integers(0, 200, size).astype(np.int16)
    config = make_config(
        (8, 16, 16),
        [f"s{i}" for i in range(1, classes)],
        activation="softmax",
        stitching=stitching,
        stride_zyx=(4, 8, 8),
    )
    network = numpy_network(lambda patches: np.repeat(patches, classes, axis=1), (8, 16, 16))
    tracemalloc.start()
    segment(a_study(image), [network], config, uncertainty=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < classes * image.size * 4 / 2
