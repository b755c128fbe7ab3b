"""Checks the arguments of networks: what is refused is named, with its value and what to give instead."""

from __future__ import annotations

from collections.abc import Sequence

from innereye_core.model import SizeZYX


def at_least(minimum: int, name: str, value: object) -> int:
    """The value of the argument ``name``, an integer of at least ``minimum``.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{name} {value!r}: must be an integer of at least {minimum}")
    return value


def zyx(name: str, value: int | Sequence[int]) -> SizeZYX:
    """The argument ``name`` for each axis (z, y, x), where one integer stands for all three.

    Raises:
        ValueError: it is neither a positive integer nor three of them.
    """
    values = list(value) if isinstance(value, (list, tuple)) else [value] * 3
    if len(values) != 3:
        raise ValueError(f"{name} {value}: must be an integer or three of them (z, y, x)")
    z, y, x = (at_least(1, name, number) for number in values)
    return z, y, x


def within_slices(name: str, value: int | Sequence[int]) -> SizeZYX:
    """The argument ``name`` of a network that looks at each slice by itself: 1 along z; one integer stands for y and x.

    Raises:
        ValueError: as :func:`zyx`, or it is not 1 along z.
    """
    z, y, x = zyx(name, value)
    if not isinstance(value, (list, tuple)):
        return 1, y, x
    if z != 1:
        raise ValueError(f"{name} {value}: must be 1 along z, because a 2-D network sees one slice at a time")
    return z, y, x
