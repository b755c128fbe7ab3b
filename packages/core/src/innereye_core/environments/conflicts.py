"""Finds, among demands on one package, those that cannot hold at once, and refuses them with both files and lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from innereye_core.environments.located import Entry
from innereye_core.errors import InputError


class Demand(Protocol):
    """What one line asks of a package; its ``str`` is what a message shows."""

    @property
    def entry(self) -> Entry:
        """The line, for its place."""
        ...


T = TypeVar("T", bound=Demand)


def refuse_contradiction(demands: Sequence[T], possible: Callable[[Sequence[T]], bool], why: str) -> None:
    """Raise if not all demands can hold at once, naming two that contradict each other where two suffice.

    Args:
        demands: what is asked of one package, in the order of the files.
        possible: whether the given demands may hold at once.
        why: what cannot be, for example ``they name different builds``.

    Raises:
        InputError: they contradict each other.
    """
    for count, demand in enumerate(demands, start=1):
        if possible(demands[:count]):
            continue
        if not possible([demand]):
            raise InputError(f"{demand.entry.place}: no version satisfies {demand}; correct it")
        pair = next((earlier for earlier in demands[:count] if not possible([earlier, demand])), None)
        if pair is not None:
            first, others = pair, [demand]
        else:
            first, *others = demands[:count]
        named = " and ".join(f"{other} ({other.entry.place})" for other in others)
        raise InputError(f"{first.entry.place}: {first} contradicts {named}; {why}, change one of them")
