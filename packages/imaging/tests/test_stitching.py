"""The three stitchings against plain whole-volume versions of InnerEye's two algorithms and of a weighted mean."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st

from innereye_core.config import ModelConfig
from innereye_core.errors import InputError
from innereye_core.model import SizeZYX
from innereye_imaging.geometry import Grid
from innereye_imaging.normalization import IntensityMap
from innereye_imaging.pipeline import Segmentation, segment
from innereye_imaging.study import Study

Function = Callable[[np.ndarray], np.ndarray]

PADDINGS = ("edge", "zero", "reflect", "symmetric", "wrap", "linear_ramp", "maximum", "mean", "median", "minimum")


def patch_dependent(patches: np.ndarray) -> np.ndarray:
    """Scores of three classes that depend on the neighbourhood within the patch and on the position in it."""
    blurred = patches.mean(axis=1)
    for axis in (1, 2, 3):
        inner = np.pad(blurred, [(1, 1) if a == axis else (0, 0) for a in range(4)])  # zeros, as convolutions see them
        size = blurred.shape[axis]
        blurred = sum(np.take(inner, range(shift, shift + size), axis=axis) for shift in range(3)) / 3
    z, y, x = np.indices(blurred.shape[1:])
    return np.stack([blurred, np.cos(3 * blurred + 0.1 * z * x) - 0.2, np.sin(5 * blurred - 0.07 * y * z)], axis=1)


def a_study(*voxels: np.ndarray, maps: tuple[IntensityMap, ...] | None = None) -> Study:
    grid = Grid(voxels[0].shape, np.eye(4))
    return Study(voxels, maps or (IntensityMap(),) * len(voxels), grid, grid, grid, True, ())


def softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def numpy_mode(padding: str) -> str:
    return "constant" if padding == "zero" else padding


def shrunk(size: SizeZYX, crop: SizeZYX, stride: SizeZYX, multiple: int) -> tuple[list[int], list[int]]:
    crops = [-(-min(c, n) // multiple) * multiple for c, n in zip(crop, size, strict=True)]
    return crops, [max(1, s * c_new // c) for s, c, c_new in zip(stride, crop, crops, strict=True)]


def reference_average(
    image: np.ndarray, function: Function, crop: SizeZYX, stride: SizeZYX, margin: SizeZYX, multiple: int, padding: str,
    gaussian: bool = False,
) -> np.ndarray:  # fmt: skip
    """Pad all, evaluate all, sum all, divide: (class, z, y, x)."""
    size = image.shape[1:]
    crops, strides = shrunk(size, crop, stride, multiple)
    outputs = [c - m for c, m in zip(crops, margin, strict=True)]
    margins = [(-(-m // 2), m // 2) for m in margin]
    padded = np.stack([np.pad(channel, margins, mode=numpy_mode(padding)) for channel in image])
    missing = [(o - n) if n < o else -(n - o) % s for n, o, s in zip(size, outputs, strides, strict=True)]
    around = [(m // 2, m - m // 2) for m in missing]
    padded = np.stack([np.pad(channel, around, mode=numpy_mode(padding)) for channel in padded])
    total = [n + m for n, m in zip(size, missing, strict=True)]
    importance = np.ones(outputs)
    if gaussian:
        for axis, (c, m, o) in enumerate(zip(crops, margins, outputs, strict=True)):
            distance = np.arange(o) + m[0] - (c - 1) / 2
            along = np.exp(-(distance**2) / (2 * (c / 8) ** 2))
            importance *= along.reshape([-1 if a == axis else 1 for a in range(3)])
    sums, weights = None, np.zeros(total)
    for start in product(*(range(0, t - o + 1, s) for t, o, s in zip(total, outputs, strides, strict=True))):
        patch = padded[:, *(slice(b, b + c) for b, c in zip(start, crops, strict=True))]
        scores = function(patch[None].astype(np.float32))[0]
        scores = scores[:, *(slice(m[0], m[0] + o) for m, o in zip(margins, outputs, strict=True))]
        sums = np.zeros((len(scores), *total)) if sums is None else sums
        where = tuple(slice(b, b + o) for b, o in zip(start, outputs, strict=True))
        sums[:, *where] += softmax(scores.astype(np.float64)) * importance
        weights[where] += importance
    assert sums is not None
    return (sums / weights)[:, *(slice(a[0], a[0] + n) for a, n in zip(around, size, strict=True))]


def reference_crop(
    image: np.ndarray, function: Function, crop: SizeZYX, stride: SizeZYX, margin: SizeZYX, multiple: int, padding: str
) -> np.ndarray:
    """Zeros to the multiple, half the overlap around, last patch at the end, centres overwrite: (class, z, y, x)."""
    size = image.shape[1:]
    missing = [-n % multiple for n in size]
    zeros = [(-(-m // 2), m // 2) for m in missing]
    image = np.stack([np.pad(channel, zeros) for channel in image])
    crops, strides = shrunk(image.shape[1:], crop, stride, multiple)
    half = [(c - s) // 2 for c, s in zip(crops, strides, strict=True)]
    padded = np.stack([np.pad(channel, [(h, h) for h in half], mode=numpy_mode(padding)) for channel in image])
    starts = []
    for n, c, s in zip(padded.shape[1:], crops, strides, strict=True):
        regular = list(range(0, n - c + 1, s))
        starts.append(sorted({*regular, n - c}))
    result = None
    for start in product(*starts):
        patch = padded[:, *(slice(b, b + c) for b, c in zip(start, crops, strict=True))]
        posteriors = softmax(function(patch[None].astype(np.float32))[0].astype(np.float64))
        result = np.zeros((len(posteriors), *padded.shape[1:])) if result is None else result
        centre = tuple(slice(h, c - h) for h, c in zip(half, crops, strict=True))
        where = tuple(slice(b + h, b + c - h) for b, h, c in zip(start, half, crops, strict=True))
        result[:, *where] = posteriors[:, *centre]
    assert result is not None
    inside = (slice(h + z[0], h + z[0] + n) for h, z, n in zip(half, zeros, size, strict=True))
    return result[:, *inside]


def assert_same(found: Segmentation, expected: np.ndarray) -> None:
    assert found.posteriors is not None
    np.testing.assert_allclose(found.posteriors, expected, atol=2e-6)
    second, first = np.sort(expected, axis=0)[-2:]
    clear = first - second > 1e-5
    np.testing.assert_array_equal(found.labels[clear], expected.argmax(axis=0)[clear])


QUICK = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def situations(draw: st.DrawFn, stitching: str) -> dict[str, Any]:
    """Images, crops and strides that fit each other; small images too, where crops shrink."""
    multiple = draw(st.sampled_from([1, 2, 4]))
    axes = []
    for _ in range(3):
        crop = draw(st.sampled_from([4, 8]))
        margin = 0 if stitching == "crop" else draw(st.integers(0, 3))
        strides = [crop, crop // 2] if stitching == "crop" else range(1, crop - margin + 1)
        # A shrunk crop may leave an odd overlap, or nothing of the output, which is refused.
        shrinks = margin == 0 and (stitching != "crop" or multiple == 4)
        axes.append((draw(st.integers(1 if shrinks else crop, 12)), crop, draw(st.sampled_from(strides)), margin))
    size, crop_size, stride, margins = zip(*axes, strict=True)
    return {
        "size": size,
        "crop": crop_size,
        "stride": stride,
        "margin": margins,
        "multiple": multiple,
        "padding": draw(st.sampled_from(PADDINGS)),
        "batch_size": draw(st.sampled_from([1, 3])),
    }


def run(
    make_config: Callable[..., ModelConfig], numpy_network: Any, situation: dict[str, Any], stitching: str
) -> tuple[Segmentation, np.ndarray]:
    """Segment random channels; return the result and the image that the network is to see."""
    rng = np.random.default_rng(0)
    stored = rng.integers(-900, 900, (2, *situation["size"])).astype(np.int16)
    maps = (IntensityMap(1 / 400, 0.1, (-1.0, 1.0)), IntensityMap(1 / 900))
    config = make_config(
        situation["crop"],
        structures=("one", "two"),
        channels=("a", "b"),
        activation="softmax",
        stride_zyx=situation["stride"],
        padding=situation["padding"],
        batch_size=situation["batch_size"],
        stitching=stitching,
    )
    network = numpy_network(
        patch_dependent, situation["crop"], situation["margin"], multiple_zyx=(situation["multiple"],) * 3
    )
    found = segment(a_study(*stored, maps=maps), [network], config, posteriors=True)
    normalised = np.stack([m.apply(voxels).astype(np.float32) for m, voxels in zip(maps, stored, strict=True)])
    return found, normalised


@QUICK
@given(situation=situations("average"))
def test_average_is_the_mean_of_all_patches(
    make_config: Callable[..., ModelConfig], numpy_network: Any, situation: dict[str, Any]
) -> None:
    found, image = run(make_config, numpy_network, situation, "average")
    how = {key: situation[key] for key in ("crop", "stride", "margin", "multiple", "padding")}
    assert_same(found, reference_average(image, patch_dependent, **how))


@QUICK
@given(situation=situations("gaussian"))
def test_gaussian_is_the_weighted_mean_of_all_patches(
    make_config: Callable[..., ModelConfig], numpy_network: Any, situation: dict[str, Any]
) -> None:
    found, image = run(make_config, numpy_network, situation, "gaussian")
    how = {key: situation[key] for key in ("crop", "stride", "margin", "multiple", "padding")}
    assert_same(found, reference_average(image, patch_dependent, **how, gaussian=True))


@QUICK
@given(situation=situations("crop"))
def test_crop_keeps_the_centres_of_patches(
    make_config: Callable[..., ModelConfig], numpy_network: Any, situation: dict[str, Any]
) -> None:
    found, image = run(make_config, numpy_network, situation, "crop")
    how = {key: situation[key] for key in ("crop", "stride", "margin", "multiple", "padding")}
    assert_same(found, reference_crop(image, patch_dependent, **how))


PLAIN = {"size": (8, 12, 4), "crop": (4, 4, 4), "stride": (4, 4, 4), "margin": (0, 0, 0)}
PLAIN |= {"multiple": 2, "padding": "edge", "batch_size": 1}


@pytest.mark.parametrize("stride", [(4, 6, 4), (2, 2, 4)])
def test_crop_of_a_network_with_smaller_output_is_as_if_it_returned_everything(
    make_config: Callable[..., ModelConfig], numpy_network: Any, stride: SizeZYX
) -> None:
    """The margin is cut off anyway, as the stride is no larger than the output."""
    situation = {**PLAIN, "size": (9, 11, 13), "crop": (8, 8, 8), "stride": stride}
    smaller, _ = run(make_config, numpy_network, {**situation, "margin": (4, 2, 4)}, "crop")
    full, _ = run(make_config, numpy_network, situation, "crop")
    np.testing.assert_array_equal(smaller.posteriors, full.posteriors)


def test_on_an_exact_multiple_without_overlap_average_and_crop_agree(
    make_config: Callable[..., ModelConfig], numpy_network: Any
) -> None:
    average, _ = run(make_config, numpy_network, PLAIN, "average")
    crop, _ = run(make_config, numpy_network, PLAIN, "crop")
    np.testing.assert_array_equal(average.posteriors, crop.posteriors)


@st.composite
def identities(draw: st.DrawFn) -> dict[str, Any]:
    """Images from 1 × 1 × 1 up, with any stride, margin and padding that do not contradict each other."""
    stitching = draw(st.sampled_from(["average", "crop", "gaussian"]))
    multiple = draw(st.sampled_from([1, 2, 4]))
    step = 2 if stitching == "crop" else 1  # which needs even overlaps
    axes = []
    for _ in range(3):
        size, crop = draw(st.integers(1, 12)), draw(st.sampled_from([4, 8]))
        margin = draw(st.sampled_from(range(0, 4, step)))
        overlap = margin + draw(st.sampled_from(range(0, crop - margin, step)))
        axes.append((size, crop, crop - overlap, margin))
    size, crop_size, stride, margins = zip(*axes, strict=True)
    return {
        "size": size,
        "crop": crop_size,
        "stride": stride,
        "margin": margins,
        "multiple": multiple,
        "stitching": stitching,
        "padding": draw(st.sampled_from(PADDINGS)),
        "batch_size": draw(st.sampled_from([1, 3])),
    }


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(situation=identities())
@example({"size": (1, 1, 1), "crop": (4, 4, 4), "stride": (4, 4, 4), "margin": (0, 0, 0), "multiple": 4,
          "stitching": "average", "padding": "edge", "batch_size": 1})  # fmt: skip
@example({"size": (1, 1, 1), "crop": (4, 4, 4), "stride": (4, 4, 4), "margin": (0, 0, 0), "multiple": 4,
          "stitching": "crop", "padding": "edge", "batch_size": 1})  # fmt: skip
@example({"size": (1, 1, 1), "crop": (4, 4, 4), "stride": (2, 2, 2), "margin": (0, 0, 0), "multiple": 4,
          "stitching": "gaussian", "padding": "zero", "batch_size": 3})  # fmt: skip
def test_a_network_that_returns_its_input_gives_back_the_image(
    make_config: Callable[..., ModelConfig], numpy_network: Any, identity: Function, situation: dict[str, Any]
) -> None:
    """Every voxel is covered, by the patches' own voxel, and weights sum to one."""
    image = np.random.default_rng(0).random(situation["size"]).astype(np.float32)
    config = make_config(
        situation["crop"],
        stitching=situation["stitching"],
        stride_zyx=situation["stride"],
        padding=situation["padding"],
        batch_size=situation["batch_size"],
    )
    network = numpy_network(identity, situation["crop"], situation["margin"], multiple_zyx=(situation["multiple"],) * 3)
    try:
        found = segment(a_study(image), [network], config, posteriors=True)
    except InputError as refusal:
        if not re.search("even overlap|is too small", str(refusal)):  # of patches that shrink to fit a small image
            raise
        reject()
    assert found.posteriors is not None
    np.testing.assert_allclose(found.posteriors, [1 - image, image], atol=1e-6)
    np.testing.assert_allclose(found.posteriors.sum(axis=0), 1, atol=1e-6)


@pytest.mark.parametrize("stitching", ["average", "crop", "gaussian"])
def test_labels_do_not_depend_on_whether_posteriors_are_kept(
    make_config: Callable[..., ModelConfig], numpy_network: Any, stitching: str
) -> None:
    image = np.random.default_rng(0).normal(size=(11, 9, 10)).astype(np.float32)
    config = make_config((6, 4, 4), ("one", "two"), activation="softmax", stitching=stitching, stride_zyx=(4, 2, 4))
    network = numpy_network(patch_dependent, (6, 4, 4))
    kept = segment(a_study(image), [network], config, posteriors=True)
    streamed = segment(a_study(image), [network], config)
    assert streamed.posteriors is None
    np.testing.assert_array_equal(streamed.labels, kept.labels)


@pytest.mark.parametrize("stitching", ["average", "crop", "gaussian"])
def test_nothing_as_large_as_classes_times_image_is_held(
    make_config: Callable[..., ModelConfig], numpy_network: Any, stitching: str
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
    segment(a_study(image), [network], config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < classes * image.size * 4 / 3
