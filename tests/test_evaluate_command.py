"""``innereye evaluate`` with a trained network: its results, a comparison with a baseline, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import pytest
from PIL import Image as Picture

from innereye_core import PackageOptions, SelectionOptions, package


def metrics(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def untrained(_pristine_run, tmp_path_factory) -> Path:
    options = SelectionOptions(epochs_to_test=(1,))
    return package(_pristine_run, options, PackageOptions(), output=tmp_path_factory.mktemp("untrained")).folder


def test_a_package_is_evaluated_on_the_split_that_is_asked_for(innereye, ball_package, ball_run):
    outcome = innereye("evaluate", ball_package, "--dataset", ball_run / "dataset.csv", "--split", "val")
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    assert outcome.stdout.splitlines()[0] == f"model {ball_package}: 2 of 2 subjects"
    assert outcome.stdout.splitlines()[-1] == str(Path("evaluation/metrics.csv"))
    rows = metrics(Path("evaluation/metrics.csv"))
    assert [(row["Patient"], row["Structure"]) for row in rows] == [("2", "ball"), ("3", "ball")]
    assert all(float(row["Dice"]) > 0.5 for row in rows)
    assert all(0 < float(row["MeanDistance_mm"]) <= float(row["HausdorffDistance_mm"]) for row in rows)
    assert Picture.open("evaluation/metrics_boxplot.png").format == "PNG"


def test_dice_is_that_of_the_selection(innereye, ball_package, ball_run):
    """The same subjects through the same pipeline as when the epoch was chosen."""
    innereye("evaluate", ball_package, "--dataset", ball_run / "dataset.csv", "--split", "val")
    table = json.loads((ball_package / "validation.json").read_text())
    (chosen,) = [found for found in table["candidates"] if found["epoch"] == table["selected"]["epoch"]]
    selected = {subject["subject"]: subject["structures"]["ball"] for subject in chosen["subjects"]}
    found = {row["Patient"]: float(row["Dice"]) for row in metrics(Path("evaluation/metrics.csv"))}
    assert found == pytest.approx(selected, abs=1e-6)


def test_a_registered_model_is_compared_with_a_baseline(innereye, ball_package, ball_run, untrained, tmp_path):
    assert innereye("register", ball_package).stdout.strip() == "Ball:1"
    arguments = ("--dataset", ball_run / "dataset.csv", "--split", "val", "--output", tmp_path / "results")
    outcome = innereye("evaluate", "Ball:1", "--baseline", untrained, *arguments)
    assert outcome.exit_code == 0, outcome
    (row,) = metrics(tmp_path / "results" / "comparison.csv")
    assert (row["Structure"], row["Pairs"]) == ("ball", "2")
    assert float(row["MedianDiceDifference"]) > 0
    assert float(row["WilcoxonP"]) == 0.5
    assert row["Remark"] == "2 differing pairs are too few: p cannot be below 0.5"
    assert row["Remark"] in outcome.stdout
    assert len(metrics(tmp_path / "results" / "baseline_metrics.csv")) == 2


def test_json_is_the_only_thing_on_stdout(innereye, ball_package, ball_run):
    outcome = innereye(
        "evaluate", ball_package, "--dataset", ball_run / "dataset.csv", "--split", "val", "--baseline", ball_package,
        "--json",
    )  # fmt: skip
    document = json.loads(outcome.stdout)
    assert document["comparison"]["ball"]["remark"] == "all differences are zero"
    assert document["summary"]["ball"]["dice"]["subjects"] == 2
    assert "evaluation/metrics.csv" in document["files"]
    written = json.loads(Path("evaluation/evaluation.json").read_text())
    assert document == {**written, "files": document["files"]}


def test_a_subject_that_cannot_be_scored_is_listed_and_the_others_are_written(innereye, ball_package, ball_run, caplog):
    image = nibabel.load(ball_run / "image_2.nii.gz")
    nibabel.save(image.slicer[:-1], ball_run / "image_2.nii.gz")
    outcome = innereye("evaluate", ball_package, "--dataset", ball_run / "dataset.csv", "--split", "val")
    outcome.refused(3, "1 subject could not be scored, and is missing from the results: 2")
    assert outcome.stdout.startswith(f"model {ball_package}: 1 of 2 subjects\n")
    assert "not scored: 2: Mask " in outcome.stdout
    assert "subject 2 cannot be scored: Mask " in caplog.text
    assert [row["Patient"] for row in metrics(Path("evaluation/metrics.csv"))] == ["3"]
    assert list(json.loads(Path("evaluation/evaluation.json").read_text())["failures"]) == ["2"]


def test_nothing_is_overwritten_unless_that_is_asked_for(innereye, ball_package, ball_run):
    arguments = ("evaluate", ball_package, "--dataset", ball_run / "dataset.csv", "--split", "val")
    assert innereye(*arguments).exit_code == 0
    innereye(*arguments).refused(3, "metrics.csv exists already", "--overwrite")
    assert innereye(*arguments, "--overwrite").exit_code == 0


def test_what_cannot_be_evaluated_is_refused_and_nothing_is_written(innereye, ball_package, ball_run, tmp_path):
    dataset = ball_run / "dataset.csv"
    innereye("evaluate", ball_package, "--dataset", dataset).refused(3, "empty test split", "'test'")
    innereye("evaluate", ball_package, "--dataset", tmp_path / "none.csv").refused(3, "none.csv: cannot be read")
    innereye("evaluate", tmp_path, "--dataset", dataset).refused(3, "manifest.json")
    innereye("evaluate", "Ball:7", "--dataset", dataset).refused(5, "Ball")
    innereye("evaluate", ball_package).refused(2, "--dataset")
    arguments = ("--dataset", dataset, "--split", "val", "--runtime", "onnx")
    innereye("evaluate", ball_package, *arguments).refused(6, "pip install")
    assert not list(Path().iterdir())


def test_a_baseline_without_a_common_structure_is_refused(innereye, ball_package, ball_run, tmp_path):
    for name in ("model.yaml", "dataset.csv"):
        text = (ball_run / name).read_text()
        (ball_run / name).write_text(text.replace("name: ball", "name: sphere").replace(",ball,", ",sphere,"))
    other = package(ball_run, SelectionOptions(epochs_to_test=(2,)), output=tmp_path / "other").folder
    rows = (ball_run / "dataset.csv").read_text() + "".join(f"{i},ball_{i}.nii.gz,ball,val\n" for i in (2, 3))
    (ball_run / "dataset.csv").write_text(rows)
    arguments = ("--dataset", ball_run / "dataset.csv", "--split", "val")
    outcome = innereye("evaluate", ball_package, "--baseline", other, *arguments)
    outcome.refused(2, "has no structure that", "nothing to compare")
