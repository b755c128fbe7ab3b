"""Many studies with one model: whole results, nothing done twice, a bad study stops no other."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from innereye_core.errors import InputError, MissingPluginError, StorageError, UsageError
from innereye_core.host import Host
from innereye_core.scoring_studies import StudyOutcome, score_studies

OUTPUTS = {"output": "labels.txt"}


def write_studies(folder: Path, count: int = 3) -> Path:
    """Studies p0, p1, …, each a file of numbers."""
    folder.mkdir()
    rows = ["subject,filePath,channel"]
    for number in range(count):
        (folder / f"{number}.txt").write_text(f"0.1 0.{number + 1} 0.9")
        rows.append(f"p{number},{number}.txt,ct")
    path = folder / "studies.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    return write_studies(tmp_path / "studies")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def run(packaged: Path, host: Host, studies: Path, results: Path) -> Callable[..., tuple[StudyOutcome, ...]]:
    def invoke(**options: Any) -> tuple[StudyOutcome, ...]:
        return score_studies(
            str(options.pop("model", packaged)),
            options.pop("studies", studies),
            results,
            options.pop("outputs", OUTPUTS),
            host=host,
            **options,
        )

    return invoke


def summary(results: Path) -> list[dict[str, str]]:
    with (results / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def statuses(outcomes: tuple[StudyOutcome, ...]) -> dict[str, str]:
    return {outcome.study: outcome.status for outcome in outcomes}


Run = Callable[..., tuple[StudyOutcome, ...]]


# --- results ----------------------------------------------------------------------------------------------------------


def test_each_study_has_a_folder_of_results(run: Run, results: Path) -> None:
    assert statuses(run()) == {"p0": "scored", "p1": "scored", "p2": "scored"}
    assert sorted(path.name for path in results.iterdir()) == ["p0", "p1", "p2", "summary.csv"]
    assert sorted(path.name for path in (results / "p0").iterdir()) == ["labels.txt", "result.json"]
    assert (results / "p0" / "labels.txt").read_text() == "0 0 1"
    assert (results / "p2" / "labels.txt").read_text() == "0 1 1"


def test_record_says_what_a_result_was_made_from(run: Run, results: Path) -> None:
    run()
    record = json.loads((results / "p0" / "result.json").read_text())
    assert record["made_from"]["model_digest"].startswith("sha256:")
    assert len(record["made_from"]["inputs"][0]) == 64
    assert record["structures"]["bright"]["voxels"] == 1
    assert list(record["files"]) == ["labels.txt"]


def test_summary_has_a_row_per_study(run: Run, results: Path) -> None:
    run()
    assert summary(results)[1] == {
        "study": "p1",
        "status": "scored",
        "error": "",
        "review": "",
        "bright_ml": "0.001",
    }


def test_more_outputs_lie_beside_the_segmentation(run: Run, results: Path) -> None:
    run(outputs={**OUTPUTS, "posteriors": "means.txt"})
    assert (results / "p1" / "means.txt").is_file()


def test_processes_give_the_same_results(run: Run, results: Path, tmp_path: Path, toy_site: Path) -> None:
    run()
    one = {path.name: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    run(jobs="2", overwrite=True)
    assert {path.name: path.read_bytes() for path in results.rglob("*") if path.is_file()} == one


# --- a bad study ------------------------------------------------------------------------------------------------------


def test_bad_study_is_reported_and_the_others_are_scored(run: Run, studies: Path, results: Path) -> None:
    (studies.parent / "1.txt").unlink()
    outcomes = run()
    assert statuses(outcomes) == {"p0": "scored", "p1": "failed", "p2": "scored"}
    assert not (results / "p1").exists()
    assert summary(results)[1]["error"].endswith("1.txt does not exist")


def test_what_concerns_all_studies_ends_the_work(run: Run, results: Path) -> None:
    with pytest.raises(MissingPluginError, match="no runtime 'faster'"):
        run(runtime="faster")
    assert summary(results) == []


def test_place_that_cannot_be_written_is_refused(run: Run, results: Path) -> None:
    results.write_text("a file")
    with pytest.raises(StorageError, match="results"):
        run()


def test_study_cannot_have_the_name_of_the_summary(run: Run, studies: Path) -> None:
    studies.write_text(studies.read_text().replace("p1,", "summary.csv,"))
    with pytest.raises(InputError, match=r"cannot be called summary\.csv"):
        run()


# --- doing it again ---------------------------------------------------------------------------------------------------


def test_existing_results_are_refused_before_any_work(run: Run, results: Path, opened: list[str]) -> None:
    (results / "p1").mkdir(parents=True)
    before = len(opened)
    with pytest.raises(InputError, match=r"p1 exists already \(1 of 3 studies\); keep what is done with --resume"):
        run()
    assert len(opened) == before


def test_resume_keeps_what_is_done(run: Run, results: Path) -> None:
    run()
    before = (results / "p0" / "result.json").stat().st_mtime_ns
    assert statuses(run(resume=True)) == {"p0": "kept", "p1": "kept", "p2": "kept"}
    assert (results / "p0" / "result.json").stat().st_mtime_ns == before


def test_summary_is_the_same_after_resuming_but_for_the_status(run: Run, results: Path) -> None:
    run()
    before = summary(results)
    run(resume=True)
    assert [{**row, "status": "scored"} for row in summary(results)] == before


@pytest.mark.parametrize("change", ["image", "result", "record", "options"])
def test_resume_does_again_what_is_not_what_it_would_be(run: Run, studies: Path, results: Path, change: str) -> None:
    run()
    options: dict[str, Any] = {}
    if change == "image":
        (studies.parent / "1.txt").write_text("0.9 0.9 0.9")
    elif change == "result":
        (results / "p1" / "labels.txt").write_text("1 0 0")
    elif change == "record":
        (results / "p1" / "result.json").write_text("{}")
    else:
        options["runtime"] = "toy"
    again = statuses(run(resume=True, **options))
    assert again["p1"] == "scored"
    assert again["p0"] == ("scored" if change == "options" else "kept")


def test_overwrite_makes_all_again(run: Run, studies: Path, results: Path) -> None:
    run()
    assert set(statuses(run(overwrite=True)).values()) == {"scored"}


def test_killed_work_is_resumed(packaged: Path, tmp_path: Path, results: Path, host: Host) -> None:
    studies = write_studies(tmp_path / "many", 200)
    code = (
        "import sys; from pathlib import Path; from innereye_core.scoring_studies import score_studies\n"
        "model, studies, results = sys.argv[1:]\n"
        f"score_studies(model, Path(studies), Path(results), {OUTPUTS!r})"
    )
    child = subprocess.Popen([sys.executable, "-c", code, packaged, studies, results], env=os.environ)
    while child.poll() is None and len(list(results.glob("*/result.json"))) < 20:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = {path.parent.name for path in results.glob("*/result.json")}
    assert 20 <= len(done) < 200
    outcomes = statuses(score_studies(str(packaged), studies, results, OUTPUTS, resume=True, host=host))
    assert {name for name, status in outcomes.items() if status == "kept"} == done
    assert {path.name for path in results.iterdir()} == {*outcomes, "summary.csv"}


# --- executors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", ["0", "-1", "many", "1.5", ""])
def test_impossible_number_of_jobs_is_refused(run: Run, jobs: str) -> None:
    with pytest.raises(UsageError, match="give a number of processes"):
        run(jobs=jobs)


@pytest.mark.parametrize("jobs", ["dask", "tcp://127.0.0.1:8786"])
def test_dask_without_its_plugin_names_the_command(run: Run, jobs: str) -> None:
    with pytest.raises(MissingPluginError, match="pip install innereye-dask"):
        run(jobs=jobs)


# --- the command line -------------------------------------------------------------------------------------------------


def test_command_prints_the_summary(innereye: Callable[..., Any], packaged: Path, studies: Path, results: Path) -> None:
    outcome = innereye("score", packaged, "--studies", studies, "--output-dir", results, "--output", "labels.txt")
    assert outcome.done().stdout.splitlines()[-1] == str(results / "summary.csv")
    assert (results / "p0" / "labels.txt").is_file()


def test_command_ends_with_exit_3_and_the_list(
    innereye: Callable[..., Any], packaged: Path, studies: Path, results: Path
) -> None:
    (studies.parent / "1.txt").unlink()
    outcome = innereye("score", packaged, "--studies", studies, "--output-dir", results, "--json")
    assert outcome.exit_code == 3
    assert outcome.stderr.splitlines()[-1].startswith("error: 1 of 3 studies could not be scored: p1; ")
    statuses = {found["study"]: found["status"] for found in outcome.json["studies"]}
    assert statuses == {"p0": "scored", "p1": "failed", "p2": "scored"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--studies", "s"], "--output-dir"),
        (["--studies", "s", "--output-dir", "o", "--mask", "m.txt"], "--mask is for one study"),
        (["--studies", "s", "--output-dir", "o", "image.txt"], "no images"),
        (["--studies", "s", "--output-dir", "o", "--output", "a/b.txt"], "without a path"),
        (["--studies", "s", "--output-dir", "o", "--output", ".."], "without a path"),
        (["--studies", "s", "--output-dir", "o", "--statistics", "result.json"], "choose another name"),
        (["image.txt", "--jobs", "2"], "name these with --studies"),
        (["image.txt", "--resume"], "name these with --studies"),
    ],
)
def test_contradictions_are_refused(
    innereye: Callable[..., Any], packaged: Path, arguments: list[str], words: str
) -> None:
    innereye("score", packaged, *arguments).refused(2, words)
