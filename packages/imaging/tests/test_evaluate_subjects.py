"""Every subject of a split is scored with a model that is loaded once; one that cannot be scored stops no other."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from innereye_core.config import ModelConfig
from innereye_core.errors import InputError, IntegrityError, MissingPluginError
from innereye_core.model import ModelFiles, Package
from innereye_core.registered_models import LoadedModel
from innereye_imaging.evaluating import EvaluationTask, evaluate, prepare_evaluation
from innereye_imaging.metrics import StructureMetrics

Write = Callable[..., Path]
SIZE = (6, 8, 10)
THICK_SLICES = np.diag([-1.0, -1.0, 5.0, 1.0])


def cube(first: int = 2, last: int = 6) -> np.ndarray:
    voxels = np.zeros(SIZE, np.uint8)
    voxels[2:4, first:last, 3:7] = 1
    return voxels


@pytest.fixture
def model(tmp_path: Path, make_config: Callable[..., ModelConfig]) -> LoadedModel:
    """A model that finds what is bright, as far as this room sees it."""
    folder = tmp_path / "final_model"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({}))
    files = ModelFiles(make_config(), (folder / "1.pth.tar",), None, folder)
    return LoadedModel(Package(folder, None), files, "Bright:1")


@pytest.fixture
def dataset(tmp_path: Path, write_nifti: Write) -> Path:
    """Three subjects for testing: found exactly, found one voxel too far, not there at all; and one for training."""
    rows = ["subject,filePath,channel,split"]
    pairs = {"exact": (cube(), cube()), "shifted": (cube(3, 7), cube()), "absent": (cube(), cube(0, 0))}
    for name, (image, mask) in pairs.items():
        write_nifti(image, THICK_SLICES, f"{name}.nii.gz")
        write_nifti(mask, THICK_SLICES, f"{name}_organ.nii.gz")
        rows += [f"{name},{name}.nii.gz,ct,test", f"{name},{name}_organ.nii.gz,organ,test"]
    rows.append("other,nowhere.nii.gz,ct,train")
    (tmp_path / "dataset.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "dataset.csv"


@pytest.fixture
def runtime(numpy_runtime: Any, numpy_network: Any, identity: Any) -> Any:
    return numpy_runtime([numpy_network(identity)])


@pytest.fixture
def task(model: LoadedModel, dataset: Path, runtime: Any, installed: Any) -> EvaluationTask:
    installed.available_runtimes = [runtime]
    return prepare_evaluation(model, dataset, "test", installed)


def test_every_subject_is_measured_in_the_order_of_the_dataset(task: EvaluationTask, installed: Any) -> None:
    found = evaluate(task, installed)
    assert [subject.subject for subject in found.subjects] == ["exact", "shifted", "absent"]
    exact, shifted, absent = (subject.structures["organ"] for subject in found.subjects)
    assert exact == StructureMetrics(1.0, 0.0, 0.0, 0.0, pytest.approx(0.16), pytest.approx(0.16))
    assert shifted.dice == 0.75
    assert shifted.hausdorff_mm == 1.0
    assert (absent.dice, absent.hausdorff_mm, absent.reference_ml) == (0.0, math.inf, 0.0)
    assert not found.failures


def test_distances_follow_the_voxel_size_of_the_file(task: EvaluationTask, installed: Any, write_nifti: Write) -> None:
    """The slices are 5 mm apart, and the mask lies one slice lower."""
    write_nifti(np.roll(cube(), 1, axis=0), THICK_SLICES, "exact_organ.nii.gz")
    assert evaluate(task, installed).subjects[0].structures["organ"].hausdorff_mm == pytest.approx(5.0)


def test_the_model_is_loaded_once(task: EvaluationTask, installed: Any, runtime: Any) -> None:
    evaluate(task, installed)
    assert runtime.loaded_on == ["cpu"]


def test_what_the_results_were_made_with_is_said(task: EvaluationTask, installed: Any) -> None:
    found = evaluate(task, installed)
    assert (found.model, found.runtime, found.device) == ("Bright:1", "numpy", "cpu")
    assert found.digest.startswith("sha256:")


def test_outside_the_mask_of_a_subject_everything_is_background(
    dataset: Path, model: LoadedModel, installed: Any, runtime: Any, write_nifti: Write
) -> None:
    region = np.zeros(SIZE, np.uint8)
    region[:, 4:, :] = 1
    write_nifti(region, THICK_SLICES, "region.nii.gz")
    dataset.write_text(dataset.read_text() + "exact,region.nii.gz,mask,test\n")
    installed.available_runtimes = [runtime]
    found = evaluate(prepare_evaluation(model, dataset, "test", installed), installed)
    metrics = found.subjects[0].structures["organ"]
    assert metrics.predicted_ml == pytest.approx(metrics.reference_ml / 2)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder, write: (folder / "shifted.nii.gz").unlink(), "shifted.nii.gz does not exist"),
        (lambda folder, write: (folder / "shifted.nii.gz").write_bytes(b"no image"), "shifted.nii.gz"),
        (
            lambda folder, write: write(np.full(SIZE, np.nan, np.float32), THICK_SLICES, "shifted.nii.gz"),
            "NaN or infinite",
        ),
        (
            lambda folder, write: write(cube()[:-1], THICK_SLICES, "shifted_organ.nii.gz"),
            "Mask .*shifted_organ.nii.gz has",
        ),
    ],
)
def test_a_subject_that_cannot_be_scored_is_listed_and_the_others_are_measured(
    dataset: Path,
    model: LoadedModel,
    installed: Any,
    runtime: Any,
    write_nifti: Write,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path, Write], object],
    message: str,
) -> None:
    spoil(dataset.parent, write_nifti)
    installed.available_runtimes = [runtime]
    with caplog.at_level(logging.WARNING):
        found = evaluate(prepare_evaluation(model, dataset, "test", installed), installed)
    assert [subject.subject for subject in found.subjects] == ["exact", "absent"]
    assert list(found.failures) == ["shifted"]
    assert re.search(message, found.failures["shifted"])
    assert "subject shifted cannot be scored: " in caplog.text


def test_where_no_subject_can_be_scored_that_is_an_error(
    dataset: Path, model: LoadedModel, installed: Any, numpy_runtime: Any, numpy_network: Any
) -> None:
    def broken(patches: np.ndarray) -> np.ndarray:
        return np.full((len(patches), 2, *patches.shape[2:]), np.nan, np.float32)

    installed.available_runtimes = [numpy_runtime([numpy_network(broken)])]
    task = prepare_evaluation(model, dataset, "test", installed)
    with pytest.raises(
        InputError, match=r"None of the 3 subjects can be scored; the first, exact: The network returns"
    ):
        evaluate(task, installed)


def test_a_member_that_was_not_loaded_is_refused(
    dataset: Path, model: LoadedModel, installed: Any, numpy_runtime: Any
) -> None:
    installed.available_runtimes = [numpy_runtime([])]
    with pytest.raises(IntegrityError, match="loaded 0 of 1 checkpoints"):
        evaluate(prepare_evaluation(model, dataset, "test", installed), installed)


def test_a_missing_runtime_is_said_before_any_image_is_read(
    dataset: Path, model: LoadedModel, installed: Any, runtime: Any
) -> None:
    installed.available_runtimes = [runtime]
    with pytest.raises(MissingPluginError, match="pip install 'innereye-onnx"):
        prepare_evaluation(model, dataset, "test", installed, runtime="onnx")


def test_progress_counts_subjects(task: EvaluationTask, installed: Any) -> None:
    done: list[int] = []

    class Recorded:
        @contextmanager
        def track(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
            assert (description, total) == ("Evaluating Bright:1", 3)
            yield done.append

    evaluate(task, installed, Recorded())
    assert done == [1, 1, 1]
