"""What an evaluation writes: tables that InnerEye's tools read, a picture, one document; and what it never replaces."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from innereye_core.builtin.metrics_csv import read_metrics
from innereye_core.errors import InputError, StorageError, UsageError
from innereye_imaging.box_plot import box_plot
from innereye_imaging.evaluating import Evaluation, SubjectMetrics
from innereye_imaging.evaluation_files import EvaluationReport, try_output_folder, write_report
from innereye_imaging.metrics import StructureMetrics

NOWHERE = StructureMetrics(math.nan, math.nan, math.nan, math.nan, 0.0, 0.0)
MISSED = StructureMetrics(0.0, math.inf, math.inf, math.inf, 2.5, 0.0)


def found(dice: float) -> StructureMetrics:
    return StructureMetrics(dice, 3.25, 2.5, 0.75, 10.0, 9.0)


EVALUATION = Evaluation(
    model="Prostate:2",
    digest="sha256:2",
    runtime="torch",
    device="cpu",
    structure_names=("prostate", "bladder"),
    subjects=(
        SubjectMetrics("p1", {"prostate": found(0.9), "bladder": NOWHERE}),
        SubjectMetrics("p2", {"prostate": MISSED, "bladder": found(0.8)}),
    ),
    failures={"p3": "p3.nii.gz: is no NIfTI file"},
)
BASELINE = replace(EVALUATION, model="Prostate:1", subjects=EVALUATION.subjects[:1], failures={})
REPORT = EvaluationReport(Path("data/dataset.csv"), "test", EVALUATION)
COMPARED = replace(REPORT, baseline=BASELINE)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_metrics_have_innereyes_columns_first_and_its_words_for_what_is_not_defined(tmp_path: Path) -> None:
    write_report(tmp_path, REPORT)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "Patient,Structure,Dice,HausdorffDistance_mm,MeanDistance_mm,"
        "HausdorffDistance95_mm,ReferenceVolume_ml,PredictedVolume_ml",
        "p1,prostate,0.900000,3.250000,0.750000,2.500000,10.000000,9.000000",
        "p1,bladder,nan,nan,nan,nan,0.000000,0.000000",
        "p2,prostate,0.000000,inf,inf,inf,2.500000,0.000000",
        "p2,bladder,0.800000,3.250000,0.750000,2.500000,10.000000,9.000000",
    ]


def test_metrics_can_be_selected_from(tmp_path: Path) -> None:
    """As an epoch's metrics.csv, without evaluating again."""
    write_report(tmp_path, REPORT)
    scores = read_metrics(tmp_path / "metrics.csv", ["prostate", "bladder"])
    assert [(score.subject, score.dice["prostate"]) for score in scores] == [("p1", 0.9), ("p2", 0.0)]


def test_the_document_says_everything(tmp_path: Path) -> None:
    write_report(tmp_path, COMPARED)
    document = json.loads((tmp_path / "evaluation.json").read_text())
    assert (document["dataset"], document["split"]) == ("data/dataset.csv", "test")
    assert (document["model"], document["digest"], document["runtime"]) == ("Prostate:2", "sha256:2", "torch")
    assert document["subjects"][0]["structures"]["prostate"]["dice"] == 0.9
    assert document["subjects"][0]["structures"]["bladder"]["dice"] is None
    assert document["subjects"][1]["structures"]["prostate"]["hausdorff_mm"] == "inf"
    assert document["summary"]["prostate"]["dice"]["mean"] == pytest.approx(0.45)
    assert document["failures"] == {"p3": "p3.nii.gz: is no NIfTI file"}
    assert document["baseline"]["model"] == "Prostate:1"
    assert document["comparison"]["prostate"] == {
        "pairs": 1,
        "differing": 0,
        "median_difference": 0.0,
        "p_value": None,
        "remark": "all differences are zero",
    }


def test_a_baseline_adds_its_metrics_and_the_comparison(tmp_path: Path) -> None:
    files = write_report(tmp_path, COMPARED)
    assert [path.name for path in files] == [
        "metrics.csv",
        "baseline_metrics.csv",
        "comparison.csv",
        "metrics_boxplot.png",
        "evaluation.json",
    ]
    rows = list(csv.DictReader((tmp_path / "comparison.csv").read_text().splitlines()))
    assert rows[0] == {
        "Structure": "prostate",
        "Pairs": "1",
        "DifferingPairs": "0",
        "MedianDiceDifference": "0.000000",
        "WilcoxonP": "nan",
        "Remark": "all differences are zero",
    }


def test_an_earlier_evaluation_leaves_no_file_behind(tmp_path: Path) -> None:
    """Or a comparison would stand beside metrics that it was not made from."""
    write_report(tmp_path, COMPARED)
    (tmp_path / "notes.txt").write_text("mine")
    write_report(tmp_path, REPORT)
    assert names(tmp_path) == {"metrics.csv", "metrics_boxplot.png", "evaluation.json", "notes.txt"}


@pytest.mark.parametrize("name", ["metrics.csv", "comparison.csv", "metrics_boxplot.png"])
def test_existing_results_are_refused_unless_they_may_be_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("earlier")
    with pytest.raises(InputError, match=f"{name} exists already; choose another --output, or replace it"):
        try_output_folder(tmp_path, [], overwrite=False)
    try_output_folder(tmp_path, [], overwrite=True)
    assert (tmp_path / name).read_text() == "earlier"


def test_an_input_is_never_replaced(tmp_path: Path) -> None:
    dataset = tmp_path / "metrics.csv"
    dataset.write_text("subject")
    with pytest.raises(UsageError, match=r"metrics.csv is an input, and would be replaced"):
        try_output_folder(tmp_path, [dataset], overwrite=True)


def test_the_folder_is_tried_before_the_work_and_made_with_the_results(tmp_path: Path) -> None:
    try_output_folder(tmp_path / "results", [], overwrite=False)
    assert names(tmp_path) == set()
    write_report(tmp_path / "results", REPORT)
    assert names(tmp_path / "results") == {"metrics.csv", "metrics_boxplot.png", "evaluation.json"}
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        try_output_folder(tmp_path / "file", [], overwrite=False)


# --- the picture ------------------------------------------------------------------------------------------------------


def pixels(content: bytes) -> np.ndarray:
    picture = Picture.open(io.BytesIO(content))
    assert picture.format == "PNG"
    return np.asarray(picture.convert("RGB")).astype(int)


def orange(shown: np.ndarray) -> int:
    return np.count_nonzero((shown[..., 0] > shown[..., 2] + 100) & (shown[..., 1] > shown[..., 2] + 40))


def test_the_picture_shows_a_baseline_in_another_colour() -> None:
    alone = pixels(box_plot([("model", EVALUATION)]))
    both = pixels(box_plot([("model", EVALUATION), ("baseline", BASELINE)]))
    assert orange(alone) == 0
    assert orange(both) > 100


def test_the_picture_grows_with_the_number_of_structures() -> None:
    structures = tuple(f"structure {i}" for i in range(30))
    many = replace(
        EVALUATION,
        structure_names=structures,
        subjects=(SubjectMetrics("p1", dict.fromkeys(structures, found(0.5))),),
    )
    assert pixels(box_plot([("model", many)])).shape[1] > 2 * pixels(box_plot([("model", EVALUATION)])).shape[1]


def test_structures_that_one_model_lacks_or_never_had_to_find_are_left_empty() -> None:
    never = replace(EVALUATION, structure_names=("bladder",), subjects=EVALUATION.subjects[:1])
    assert pixels(box_plot([("model", EVALUATION), ("baseline", never)])).size


def test_equal_results_are_equal_bytes() -> None:
    assert box_plot([("model", EVALUATION)]) == box_plot([("model", EVALUATION)])
