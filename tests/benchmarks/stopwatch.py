"""Measures a task from inside of the process that does it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.jobs import Figures


class Stopwatch:
    """Wall time, CPU time, and the time within calls that are timed one by one."""

    def __init__(self) -> None:
        self._seconds = self._cpu_seconds = self._network_seconds = 0.0
        self._calls = 0

    @contextmanager
    def task(self) -> Iterator[None]:
        """Time what is done within; what was timed before is forgotten."""
        self._network_seconds, self._calls = 0.0, 0
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self._seconds, self._cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu

    @contextmanager
    def network(self) -> Iterator[None]:
        """Time one call of the network."""
        started = time.perf_counter()
        yield
        self._network_seconds += time.perf_counter() - started
        self._calls += 1

    @property
    def figures(self) -> Figures:
        """What was measured."""
        return Figures(self._seconds, self._cpu_seconds, self._network_seconds if self._calls else None)
