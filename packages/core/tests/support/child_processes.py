"""Runs work in child processes: as another user, or with a kill -9 at a chosen line. For the tests of core."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

# Children that inherit what is loaded here start in milliseconds.
fork = multiprocessing.get_context("fork")


def in_child(work: Callable[[], None], *, user: int | None = None) -> None:
    """Run in a child process, as another user where one is named, and fail if it raises."""

    def run() -> None:
        if user is not None and os.getuid() == 0:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        work()

    child = fork.Process(target=run)
    child.start()
    child.join()
    assert child.exitcode == 0


def lines_of(work: Callable[[], object]) -> int:
    """How many lines of Python ``work`` runs."""
    count = fork.Value("i", 0)

    def run() -> None:
        def trace(frame: FrameType, event: str, arg: object) -> Any:
            count.value += 1
            return trace

        sys.settrace(trace)
        work()

    child = fork.Process(target=run)
    child.start()
    child.join()
    return int(count.value)


def kill_at_line(line: int, work: Callable[[], object]) -> None:
    """Repeat ``work`` in a child process that ends by kill -9 at that line, whatever else the machine is doing."""

    def run() -> None:
        left = line

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        while True:
            work()

    child = fork.Process(target=run)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
