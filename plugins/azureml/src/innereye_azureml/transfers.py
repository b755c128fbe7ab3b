"""Carries out many transfers at once, and says how far they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from innereye_core.contract.providers import Progress

T = TypeVar("T")

AT_ONCE = 4
_MIB = 1 << 20


def for_each(items: Iterable[T], act: Callable[[T], None]) -> None:
    """Call ``act`` with every item, several at a time.

    Raises:
        Exception: what ``act`` raised first; what has not begun by then never does.
    """
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        pending = [pool.submit(act, item) for item in items]
        done, _ = wait(pending, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def tracked_bytes(progress: Progress, description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a task of ``total`` bytes in MiB; what it gives takes numbers of bytes, from any thread."""
    steps = -(-total // _MIB)
    lock = threading.Lock()
    moved = shown = 0

    with progress.track(f"{description} (MiB)", steps) as advance:

        def add(count: int) -> None:
            nonlocal moved, shown
            with lock:
                moved += count
                reached = steps if moved >= total else moved // _MIB
                advance(reached - shown)
                shown = reached

        yield add
