"""Progress that nobody sees: the default where no person watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Silent:
    """Accepts progress and shows nothing."""

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """Accept ``total`` steps."""
        yield lambda steps: None
