"""A loop over patients loads a model once; another model takes the place of the one before."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from innereye_core.config import ModelConfig
from innereye_core.model import ModelFiles, ScoreRequest
from innereye_core.progress import Silent
from innereye_imaging.scorer import ImageScorer

RANDOM = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)


@pytest.fixture
def image(write_nifti: Callable[..., Path]) -> Path:
    return write_nifti(RANDOM)


@pytest.fixture
def model(make_config: Callable[..., ModelConfig]) -> ModelFiles:
    return ModelFiles(make_config(), (Path("1.pth.tar"),))


@pytest.fixture
def runtime(installed: Any, numpy_runtime: Any, numpy_network: Any, identity: Any) -> Any:
    """A runtime that makes a new network each time, and notes how many of those before are still there."""

    class Counting(numpy_runtime):
        def __init__(self) -> None:
            super().__init__(ranks={"cpu": 1, "cuda": 2})
            self.made: list[weakref.ref[Any]] = []
            self.there_before: list[int] = []
            self.function = identity

        def load(self, model: ModelFiles, device: str) -> list[Any]:
            gc.collect()
            self.there_before.append(sum(reference() is not None for reference in self.made))
            networks = [numpy_network(self.function) for _ in model.checkpoints]
            self.made += map(weakref.ref, networks)
            return networks

    installed.available_runtimes.append(Counting())
    return installed.available_runtimes[0]


def score(scorer: ImageScorer, model: ModelFiles, image: Path, installed: Any, **others: Any) -> None:
    request = ScoreRequest(model, "Test:1", (image,), image.with_name("segmentation.nii.gz"), overwrite=True, **others)
    scorer.score(request, installed, Silent())


def test_one_model_is_loaded_once(image: Path, model: ModelFiles, installed: Any, runtime: Any) -> None:
    scorer = ImageScorer()
    for _ in range(3):
        score(scorer, model, image, installed)
    assert len(runtime.made) == 1


def test_another_model_is_loaded_after_the_first_was_freed(
    image: Path, model: ModelFiles, installed: Any, runtime: Any
) -> None:
    """Also if it is equal: the files may have changed since."""
    scorer, other = ImageScorer(), ModelFiles(model.config, model.checkpoints)
    assert other == model
    for one in (model, other, model):
        score(scorer, one, image, installed)
    assert runtime.there_before == [0, 0, 0]
    assert len(runtime.made) == 3


def test_another_device_is_another_load(image: Path, model: ModelFiles, installed: Any, runtime: Any) -> None:
    scorer = ImageScorer()
    for device in ("cpu", "cuda", "cuda"):
        score(scorer, model, image, installed, device=device)
    assert runtime.there_before == [0, 0]


def test_networks_go_when_nobody_holds_their_model(
    image: Path, make_config: Callable[..., ModelConfig], installed: Any, runtime: Any
) -> None:
    scorer = ImageScorer()
    model = ModelFiles(make_config(), (Path("1.pth.tar"),))
    score(scorer, model, image, installed)
    gc.collect()
    assert runtime.made[0]() is not None
    del model
    gc.collect()
    assert runtime.made[0]() is None


def test_a_model_that_cannot_be_loaded_is_tried_again(
    image: Path, model: ModelFiles, installed: Any, runtime: Any, numpy_network: Any, identity: Any
) -> None:
    scorer = ImageScorer()
    load = runtime.load
    runtime.load = lambda *arguments: []
    with pytest.raises(Exception, match="loaded 0 of 1 checkpoints"):
        score(scorer, model, image, installed)
    runtime.load = load
    score(scorer, model, image, installed)


def test_several_threads_share_one_scorer(
    write_nifti: Callable[..., Path], model: ModelFiles, installed: Any, runtime: Any, identity: Any
) -> None:
    """One study at a time is evaluated, and every result is that of its own image."""
    scorer, together, most = ImageScorer(), 0, 0

    def watched(patches: np.ndarray) -> np.ndarray:
        nonlocal together, most
        together += 1
        most = max(most, together)
        scores: np.ndarray = identity(patches)
        together -= 1
        return scores

    runtime.function = watched
    volumes = [np.random.default_rng(seed).random((6, 7, 8)).astype(np.float32) for seed in range(4)]
    images = [write_nifti(voxels, name=f"{number}.nii") for number, voxels in enumerate(volumes)]
    outputs = [path.with_name(f"result{path.name}") for path in images]

    def work(path: Path, output: Path) -> None:
        scorer.score(ScoreRequest(model, "Test:1", (path,), output), installed, Silent())

    threads = [threading.Thread(target=work, args=pair) for pair in zip(images, outputs, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for voxels, output in zip(volumes, outputs, strict=True):
        np.testing.assert_array_equal(np.asanyarray(nib.load(output).dataobj).T, voxels > 0.5)
    assert (len(runtime.made), most) == (1, 1)
