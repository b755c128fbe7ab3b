"""Many patients with one real model: the same files as one by one, on this machine and on a Dask cluster."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ball_runs import write_ball


def write_studies(folder: Path, count: int) -> Path:
    """A folder for each patient, with the channel of the model."""
    for number in range(count):
        study = folder / f"patient{number:03}"
        study.mkdir(parents=True)
        image, _ = write_ball(study, 10 + number)
        image.rename(study / "mr.nii.gz")
        for mask in study.glob("ball_*"):
            mask.unlink()
    return folder


@pytest.fixture
def studies(tmp_path):
    return write_studies(tmp_path / "studies", 4)


def files_of(results: Path, *suffixes: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(results)): path.read_bytes()
        for path in sorted(results.rglob("*"))
        if path.is_file() and path.name.endswith(suffixes or "")
    }


def test_results_are_those_of_scoring_one_by_one(innereye, ball_package, studies, tmp_path):
    innereye("score", ball_package, "--studies", studies, "--output-dir", tmp_path / "many")
    for study in studies.iterdir():
        alone = tmp_path / f"{study.name}.nii.gz"
        innereye("score", ball_package, study / "mr.nii.gz", "--output", alone)
        assert (tmp_path / "many" / study.name / "segmentation.nii.gz").read_bytes() == alone.read_bytes()


def test_summary_has_the_volumes(innereye, ball_package, studies, tmp_path):
    innereye("score", ball_package, "--studies", studies, "--output-dir", tmp_path / "many")
    with (tmp_path / "many" / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["study"] for row in rows] == [f"patient{number:03}" for number in range(4)]
    assert all(0.5 < float(row["ball_ml"]) < 10 for row in rows)


def test_every_output_lies_in_the_folder_of_its_study(innereye, ball_package, studies, tmp_path):
    names = ["--posteriors", "each/", "--uncertainty", "entropy.nii.gz", "--statistics", "numbers.csv"]
    names += ["--preview", "look.png", "--report", "report.html"]
    outcome = innereye("score", ball_package, "--studies", studies, "--output-dir", tmp_path / "many", *names)
    assert outcome.exit_code == 0, outcome.stderr
    found = {
        str(path.relative_to(tmp_path / "many" / "patient002"))
        for path in (tmp_path / "many" / "patient002").rglob("*")
    }
    assert found >= {"each", "entropy.nii.gz", "numbers.csv", "look.png", "report.html", "segmentation.nii.gz"}


def test_a_bad_image_stops_no_other(innereye, ball_package, studies, tmp_path):
    (studies / "patient001" / "mr.nii.gz").write_bytes(b"no image")
    outcome = innereye("score", ball_package, "--studies", studies, "--output-dir", tmp_path / "many", "--json")
    assert outcome.exit_code == 3
    assert "1 of 4 studies could not be scored: patient001" in outcome.stderr.splitlines()[-1]
    statuses = [found["status"] for found in json.loads(outcome.stdout)["studies"]]
    assert statuses == ["scored", "failed", "scored", "scored"]
    assert not (tmp_path / "many" / "patient001").exists()


def test_mask_of_a_study_is_used(innereye, ball_package, studies, tmp_path):
    import nibabel
    import numpy as np

    image = nibabel.load(studies / "patient000" / "mr.nii.gz")
    nothing = np.zeros(image.shape, np.uint8)
    nothing[0, 0, 0] = 1
    nibabel.save(nibabel.Nifti1Image(nothing, image.affine), studies / "patient000" / "mask.nii.gz")
    innereye("score", ball_package, "--studies", studies, "--output-dir", tmp_path / "many")
    segmented = [
        np.asanyarray(nibabel.load(tmp_path / "many" / name / "segmentation.nii.gz").dataobj).sum()
        for name in ("patient000", "patient001")
    ]
    assert segmented[0] <= 1 < segmented[1]


def start(model: Path, studies: Path, results: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "innereye_core", "score", model, "--studies", studies, "--output-dir", results]
    return subprocess.Popen(
        [*map(str, command), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def wait_for(results: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    while len(list(results.glob("*/result.json"))) < count:
        assert process.poll() is None, "it ended before it was to be stopped"
        time.sleep(0.005)


def test_ctrl_c_leaves_whole_results_and_the_rest_is_made_later(innereye, ball_package, tmp_path):
    studies, results = write_studies(tmp_path / "studies", 30), tmp_path / "many"
    process = start(ball_package, studies, results)
    wait_for(results, 3, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    done = {path.name for path in results.iterdir() if path.is_dir()}
    assert 3 <= len(done) < 30
    assert all((results / name / "segmentation.nii.gz").is_file() for name in done)

    outcome = innereye("score", ball_package, "--studies", studies, "--output-dir", results, "--resume", "--json")

    statuses = {found["study"]: found["status"] for found in json.loads(outcome.stdout)["studies"]}
    assert {name for name, status in statuses.items() if status == "kept"} == done
    assert set(statuses.values()) == {"kept", "scored"}


@pytest.mark.slow
def test_processes_give_the_same_files(innereye, ball_package, studies, tmp_path):
    for jobs in ("1", "2"):
        arguments = ("--studies", studies, "--output-dir", tmp_path / jobs, "--jobs", jobs)
        assert innereye("score", ball_package, *arguments).exit_code == 0
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")


@pytest.mark.slow
def test_dask_gives_the_same_files_also_when_a_worker_is_killed(innereye, ball_package, tmp_path):
    psutil = pytest.importorskip("psutil", reason="innereye-dask is not installed")
    studies = write_studies(tmp_path / "studies", 40)
    innereye("score", ball_package, "--studies", studies, "--output-dir", tmp_path / "alone")
    process = start(ball_package, studies, tmp_path / "dask", "--jobs", "dask")
    wait_for(tmp_path / "dask", 2, process)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]
    workers[0].send_signal(signal.SIGKILL)
    assert process.wait(300) == 0
    assert files_of(tmp_path / "dask") == files_of(tmp_path / "alone")


@pytest.mark.slow
def test_five_hundred_studies_take_no_more_memory_than_fifty(ball_package, tmp_path):
    source = write_studies(tmp_path / "source", 1) / "patient000"
    studies = tmp_path / "studies"
    for number in range(500):
        shutil.copytree(source, studies / f"patient{number:03}")
    code = """
import sys
from contextlib import contextmanager
from pathlib import Path
from innereye_core.scoring_studies import score_studies

class Memory:
    resident = []

    @contextmanager
    def track(self, description, total):
        yield lambda steps: self.resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)

model, studies, results = map(Path, sys.argv[1:])
memory = Memory()
score_studies(str(model), studies, results, {"output": "segmentation.nii.gz"}, progress=memory)
print(max(memory.resident[:50]), max(memory.resident))
"""
    command = [sys.executable, "-c", code, ball_package, studies, tmp_path / "results"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    after_fifty, at_most = map(int, done.stdout.split())
    assert at_most - after_fifty < 20e6
