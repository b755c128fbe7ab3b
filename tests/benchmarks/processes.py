"""Runs a command in a fresh process, and takes from the operating system what the whole process used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.jobs import Figures, Job

_BYTES_PER_UNIT_OF_MAXRSS = 1 if sys.platform == "darwin" else 1024
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class ContenderFailed(Exception):
    """A process ended with an error; the message is its last line."""


@dataclass(frozen=True)
class Usage:
    """What a process used from its start to its end, Python and imports included."""

    wall_seconds: float
    cpu_seconds: float
    """User and system, all threads."""
    peak_bytes: int
    """Largest resident set."""
    load: float
    """The machine's load average of the last minute, when the process started."""


@dataclass(frozen=True)
class Run:
    """One process of one contender."""

    usage: Usage
    figures: Figures | None
    """What it measured itself."""


def use_threads(threads: int) -> None:
    """Give this process's children so many threads and, where the system can, so many processors."""
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def run_job(module: str, job: Job) -> Run:
    """Let a contender do a job.

    Raises:
        ContenderFailed: it cannot.
    """
    usage, output = run([sys.executable, "-m", "benchmarks.worker", module, job.text()])
    return Run(usage, Figures(**json.loads(output.splitlines()[-1])))


def run(command: Sequence[str]) -> tuple[Usage, str]:
    """Run a command, and give what it used and what it printed.

    This process must stay small: a child begins with the resident set of the process that started it.

    Raises:
        ContenderFailed: it ended with an error.
    """
    load = os.getloadavg()[0]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors, stdin=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            lines = errors.read().strip().splitlines() or [f"exit code {process.returncode}"]
            raise ContenderFailed(lines[-1])
        usage = Usage(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * _BYTES_PER_UNIT_OF_MAXRSS, load)
        return usage, output.read()
