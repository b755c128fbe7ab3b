"""Scores studies on this machine: in this process, reading and writing while the network works, or in several."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from innereye_core.errors import InnerEyeError

if TYPE_CHECKING:
    from innereye_core.scoring_studies import StudyOutcome, StudyTask
    from innereye_core.studies import StudyFiles

_THREADS = 2
"""One study is read or written while the network works on another."""

_THREADS_VARIABLE = "OMP_NUM_THREADS"


class LocalExecutor:
    """``--jobs N``: N processes on this machine."""

    name = "local"

    def accepts(self, jobs: str) -> bool:
        """Whether this is a number of processes."""
        return jobs.isascii() and jobs.isdigit() and int(jobs) > 0

    def run(self, task: StudyTask, studies: Sequence[StudyFiles], jobs: str) -> Iterator[StudyOutcome]:
        """Outcomes as they come. Studies that have been begun are given up if the caller stops.

        Raises:
            InnerEyeError: what concerns all studies; a process died.
        """
        return _in_processes(task, studies, int(jobs)) if int(jobs) > 1 else _in_threads(task, studies)


def _in_threads(task: StudyTask, studies: Sequence[StudyFiles]) -> Iterator[StudyOutcome]:
    stopped = threading.Event()
    pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
    try:
        futures = [pool.submit(task, study, _UntilStopped(stopped)) for study in studies]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)


def _in_processes(task: StudyTask, studies: Sequence[StudyFiles], count: int) -> Iterator[StudyOutcome]:
    with _threads_shared_by(count):
        pool = concurrent.futures.ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))
        try:
            futures = [pool.submit(task, study) for study in studies]
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except concurrent.futures.BrokenExecutor:
            raise InnerEyeError(
                "a process that scored studies was killed, perhaps for want of memory; go on with --resume, and fewer "
                "--jobs"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _threads_shared_by(processes: int) -> Iterator[None]:
    """Let each new process use its share of the processors, unless the user has said how many."""
    if _THREADS_VARIABLE in os.environ:
        yield
        return
    os.environ[_THREADS_VARIABLE] = str(max(1, len(os.sched_getaffinity(0)) // processes))
    try:
        yield
    finally:
        del os.environ[_THREADS_VARIABLE]


class _UntilStopped:
    """Shows nothing, and ends the work at its next step once it is stopped."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped

    @contextlib.contextmanager
    def track(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        yield self._step

    def _step(self, steps: int) -> None:
        if self._stopped.is_set():
            raise concurrent.futures.CancelledError
