"""Studies on a Dask cluster: the same results as without, one model per worker, nothing lost with a worker."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dask_task import Task

from innereye_core.errors import InnerEyeError, UsageError
from innereye_core.host import Host
from innereye_core.studies import StudyFiles
from innereye_dask.executor import DaskExecutor

SUPPORT = Path(__file__).parent / "support"


def studies(count: int) -> list[StudyFiles]:
    return [StudyFiles(f"p{number:02}") for number in range(count)]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler and two workers as an administrator would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    folder = tmp_path_factory.mktemp("cluster")
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
    host, port = address.removeprefix("tcp://").split(":")
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]),
    }
    processes = [
        subprocess.Popen(command, cwd=folder, env=variables, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for command in ([*scheduler, "--host", host, "--port", port], worker, worker)
    ]
    yield address
    for process in reversed(processes):  # the scheduler last: without one, workers wait for it
        process.terminate()
        process.wait()


# --- which jobs are meant ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", ["dask", "tcp://scheduler:8786", "tls://scheduler:8786"])
def test_host_gives_the_work_to_dask(jobs: str) -> None:
    assert Host().executor(jobs).name == "dask"


@pytest.mark.parametrize("jobs", ["1", "16"])
def test_numbers_are_not_for_dask(jobs: str) -> None:
    assert Host().executor(jobs).name == "local"


def test_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, notes: Path) -> None:
    monkeypatch.setattr("innereye_dask.executor._CONNECTING_SECONDS", 1)
    with pytest.raises(UsageError, match=r"--jobs tcp://127.0.0.1:1: no Dask scheduler answers there"):
        next(DaskExecutor().run(Task(notes), studies(1), "tcp://127.0.0.1:1"))  # type: ignore[arg-type]


# --- work -------------------------------------------------------------------------------------------------------------


def run(cluster: str, task: Task, work: list[StudyFiles]) -> list[str]:
    return sorted(outcome.study for outcome in DaskExecutor().run(task, work, cluster))  # type: ignore[arg-type]


def workers(notes: Path) -> set[int]:
    return {int(path.name.split("-")[1]) for path in notes.glob("p*")}


def test_every_study_is_done_once_by_some_worker(cluster: str, notes: Path) -> None:
    assert run(cluster, Task(notes), studies(20)) == [study.name for study in studies(20)]
    assert len(list(notes.glob("p*"))) == 20
    assert os.getpid() not in workers(notes)


def test_worker_that_is_killed_loses_nothing(cluster: str, notes: Path) -> None:
    def kill() -> None:
        while not workers(notes):
            time.sleep(0.02)
        os.kill(workers(notes).pop(), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    done = run(cluster, Task(notes, 0.2), studies(12))
    thread.join()
    assert done == [study.name for study in studies(12)]
    assert len(list(notes.glob("p*"))) > 12  # what the dead worker had begun was begun again


def test_what_concerns_all_studies_ends_the_work(cluster: str, notes: Path) -> None:
    work = [StudyFiles("p00", problem="full"), *studies(200)[1:]]
    with pytest.raises(InnerEyeError, match="the disk is full"):
        run(cluster, Task(notes), work)
    assert len(list(notes.glob("done-*"))) < 199


def test_study_that_kills_its_workers_ends_the_work_with_its_name(cluster: str, notes: Path) -> None:
    with pytest.raises(InnerEyeError, match=r"workers died on p00-.*--resume"):
        run(cluster, Task(notes), [StudyFiles("p00", problem="deadly")])
