"""Conda's version order, and sets of versions that can be intersected exactly.

Conda's documentation of ``VersionOrder`` gives the order: case does not matter; ``N!`` in front is an epoch; ``-`` and
``_`` separate like ``.``, except for one ``_`` at the end; each part falls into runs of digits and of letters; a part
that begins with a letter gets a 0 in front; numbers compare as numbers, ``dev`` is below all other letters, ``post`` is
above all numbers, letters are below numbers; missing parts count as 0; ``+local`` decides last.

Under that order the versions that ``=1.21`` matches lie side by side, like those of every other operator. So a set of
versions is a list of intervals, and whether two sets have a version in common needs no list of real releases.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import total_ordering
from itertools import zip_longest
from typing import TypeAlias

_Element: TypeAlias = tuple[int, int | str]
_Part: TypeAlias = tuple[_Element, ...]

_LOWEST: _Element = (-1, 0)
_ZERO: _Element = (1, 0)
_POST: _Element = (2, 0)
_HIGHEST: _Element = (3, 0)
_DEV = "DEV"
"""How ``dev`` is kept: capital letters sort below ``_`` and the small ones."""
_LAST_CHARACTER = "\U0010ffff"


@total_ordering
@dataclass(frozen=True, eq=False)
class CondaVersion:
    """A version, ordered as conda orders them."""

    release: tuple[_Part, ...]
    """Epoch, then the parts between dots; an element is (0, letters), (1, number) or (2, 0) for ``post``."""
    local: tuple[_Part, ...] = ()

    @classmethod
    def parse(cls, text: str) -> CondaVersion:
        """Read a version such as ``1.21.0``, ``1!2.0rc1`` or ``1.0+cu113``.

        Raises:
            ValueError: it is none.
        """
        version = text.lower()
        if "-" in version and "_" in version:
            raise ValueError(f"{text!r} mixes - and _")
        epoch, _, rest = version.rpartition("!")
        release, plus, local = rest.partition("+")
        if not (epoch or "0").isdecimal() or bool(plus) != bool(local) or ("!" in version and not epoch):
            raise ValueError(f"{text!r} is no version")
        first: _Part = ((1, int(epoch or "0")),)
        return cls((first, *_parts(release)), _parts(local) if local else ())

    def __lt__(self, other: CondaVersion) -> bool:
        for ours, theirs in ((self.release, other.release), (self.local, other.local)):
            for part, other_part in zip_longest(ours, theirs, fillvalue=()):
                for element, other_element in zip_longest(part, other_part, fillvalue=_ZERO):
                    if element != other_element:
                        return element < other_element
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CondaVersion) and not self < other and not other < self


def _parts(text: str) -> tuple[_Part, ...]:
    text = text.replace("-", "_")
    separated = text[:-1].replace("_", ".") + text[-1:]
    parts = []
    for part in separated.split("."):
        if not re.fullmatch(r"[0-9a-z]+_?|_", part):
            raise ValueError(f"{text!r} is no version")
        elements = tuple(_element(run) for run in re.findall(r"[0-9]+|[^0-9]+", part))
        parts.append(elements if part[0].isdecimal() else (_ZERO, *elements))
    return tuple(parts)


def _element(run: str) -> _Element:
    if run.isdecimal():
        return (1, int(run))
    if run == "post":
        return _POST
    return (0, _DEV if run == "dev" else run)


@total_ordering
@dataclass(frozen=True)
class _Cut:
    """A place between versions: just below or just above one."""

    version: CondaVersion
    above: bool

    def __lt__(self, other: _Cut) -> bool:
        return self.version < other.version or (self.version == other.version and self.above < other.above)


_START = _Cut(CondaVersion(((_LOWEST,),)), above=False)
_END = _Cut(CondaVersion(((_HIGHEST,),)), above=True)


@dataclass(frozen=True)
class VersionSet:
    """A set of versions: intervals between two cuts, ascending and disjoint."""

    intervals: tuple[tuple[_Cut, _Cut], ...]

    def __bool__(self) -> bool:
        return bool(self.intervals)

    def __and__(self, other: VersionSet) -> VersionSet:
        return _union((max(a, c), min(b, d)) for a, b in self.intervals for c, d in other.intervals)

    def __or__(self, other: VersionSet) -> VersionSet:
        return _union((*self.intervals, *other.intervals))

    def __contains__(self, version: object) -> bool:
        if not isinstance(version, CondaVersion):
            return False
        return bool(self & VersionSet(((_Cut(version, above=False), _Cut(version, above=True)),)))


def _union(intervals: Iterable[tuple[_Cut, _Cut]]) -> VersionSet:
    joined: list[tuple[_Cut, _Cut]] = []
    for low, high in sorted(interval for interval in intervals if interval[0] < interval[1]):
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return VersionSet(tuple(joined))


ANY_VERSION = VersionSet(((_START, _END),))


def matching(operator: str, version: str) -> VersionSet:
    """The versions that one condition allows.

    Conda's reading, but where solvers differ about a form that conda discourages (``==1.2.*``, ``>1.2.*``), the set
    holds what any of them allows: it must be certain that an empty intersection is a contradiction.

    Args:
        operator: one of ``== != >= <= > < ~= =``, or empty: ``1.21`` alone is exact, ``1.21.*`` is not.
        version: a version; it may end with ``.*`` or ``*``, or be ``*`` alone.

    Raises:
        ValueError: it cannot be understood.
    """
    if version == "*" and operator in ("", "=", "=="):
        return ANY_VERSION
    stem = version.removesuffix("*").removesuffix(".") if version.endswith("*") else version
    starred = stem != version
    point = CondaVersion.parse(stem)
    below, above = _Cut(point, above=False), _Cut(point, above=True)
    match operator, starred:
        case "=", _:
            return VersionSet((_prefixed(point),))
        case (("" | "=="), True):
            return VersionSet((_prefixed(point),))
        case (("" | "=="), False):
            return VersionSet(((below, above),))
        case "!=", _:
            low, high = _prefixed(point) if starred else (below, above)
            return VersionSet(((_START, low), (high, _END)))
        case ((">" | ">="), True):
            return VersionSet(((_prefixed(point)[0], _END),))
        case ">", False:
            return VersionSet(((above, _END),))
        case ">=", False:
            return VersionSet(((below, _END),))
        case "<", _:
            return VersionSet(((_START, below),))
        case "<=", _:
            return VersionSet(((_START, _prefixed(point)[1] if starred else above),))
        case "~=", False if len(point.release) > 2:
            series = CondaVersion(point.release[:-1])
            return VersionSet(((below, _prefixed(series)[1]),))
    raise ValueError(f"{operator}{version} cannot be understood")


def _prefixed(version: CondaVersion) -> tuple[_Cut, _Cut]:
    """The interval of the versions that begin with the parts of ``version``."""
    if version.local:
        raise ValueError("conda does not say what follows a local version")
    *parts, last = version.release
    kind, value = last[-1]
    after = (*last[:-1], (kind, f"{value}{_LAST_CHARACTER}")) if kind == 0 and value != _DEV else last
    low = CondaVersion((*parts, (*last, _LOWEST)))
    high = CondaVersion((*parts, (*after, _HIGHEST)))
    return _Cut(low, above=False), _Cut(high, above=True)
