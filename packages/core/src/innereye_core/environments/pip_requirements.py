"""Reads pip requirements (PEP 508, VCS and file addresses), refuses contradictions, and makes one line per package."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from innereye_core.environments.conflicts import refuse_contradiction
from innereye_core.environments.located import Entry
from innereye_core.environments.pip_versions import is_unsatisfiable
from innereye_core.errors import InputError

_LINE_OPTION = re.compile(r"\s+(?=--?[A-Za-z])")
"""What separates a requirement from its own options, such as --hash."""
_ADDRESS = re.compile(r"(?i)(?:(?P<vcs>git|hg|svn|bzr)\+)?[a-z][a-z0-9+.-]*://\S+")
_PINNED = {
    "git": re.compile(r"@(?:[0-9a-f]{40}|[0-9a-f]{64})$"),
    "hg": re.compile(r"@[0-9a-f]{40}$"),
    "svn": re.compile(r"@\d+$"),
    "bzr": re.compile(r"@\d+$"),
}


@dataclass(frozen=True)
class PipRequirement:
    """One pip requirement."""

    entry: Entry
    written_name: str
    name: str | None
    """Normalised (PEP 503); None where an address does not tell it."""
    extras: frozenset[str] = frozenset()
    specifiers: SpecifierSet = field(default_factory=SpecifierSet)
    address: str | None = None
    """Where it is installed from, in place of an index."""
    marker: str = ""
    has_options: bool = False

    def __str__(self) -> str:
        return str(self.entry)

    @property
    def package(self) -> tuple[str, str]:
        """What requirements share that speak of one package under one condition; else, the line itself."""
        return (self.name, self.marker) if self.name is not None else (self.entry.text, "")


def parse_requirement(entry: Entry) -> PipRequirement:
    """Read one requirement line.

    Raises:
        InputError: it is none, or it is a file on this machine.
    """
    text = entry.text
    line, *options = _LINE_OPTION.split(text, maxsplit=1)
    if _ADDRESS.match(line):
        address, _, marker = re.sub(r"\s+;", " ;", line).partition(" ;")
        written_name, extras = _name_in(address)
        requirement = PipRequirement(
            entry,
            written_name,
            canonicalize_name(written_name) if written_name else None,
            extras,
            address=_without_egg(address),
            marker=marker.strip(),
            has_options=bool(options),
        )
    else:
        try:
            parsed = Requirement(line)
        except InvalidRequirement:
            raise InputError(
                f"{entry.place}: {entry} is no pip requirement; write for example numpy==1.26.4 or numpy>=1.26,<2"
            ) from None
        requirement = PipRequirement(
            entry,
            parsed.name,
            canonicalize_name(parsed.name),
            frozenset(canonicalize_name(extra) for extra in parsed.extras),
            parsed.specifier,
            _without_egg(parsed.url) if parsed.url else None,
            str(parsed.marker or ""),
            bool(options),
        )
    if requirement.address is not None and not _travels(requirement.address):
        raise InputError(
            f"{entry.place}: {entry} is a file on this machine and does not travel with the model; name a published"
            " package"
        )
    return requirement


def unpinned_address(requirement: PipRequirement) -> bool:
    """Whether it is installed from version control at a branch or tag, whose content may change."""
    match = _ADDRESS.match(requirement.address or "")
    if match is None or match["vcs"] is None:
        return False
    return not _PINNED[match["vcs"].lower()].search(match[0].partition("#")[0])


def merge_requirements(requirements: Sequence[PipRequirement]) -> tuple[list[PipRequirement], list[str]]:
    """Bring together what speaks of the same package under the same marker.

    Requirements by version become one line with all specifiers and extras, since older pips refuse a package that is
    listed twice. Requirements with different markers stay apart.

    Returns:
        The requirements, by first appearance, and warnings.

    Raises:
        InputError: two contradict each other.
    """
    packages: dict[tuple[str, str], list[PipRequirement]] = {}
    for requirement in requirements:
        packages.setdefault(requirement.package, []).append(requirement)
    merged: list[PipRequirement] = []
    warnings: list[str] = []
    for same in packages.values():
        refuse_contradiction(same, _one_address, "a package is installed from one address")
        refuse_contradiction(same, _versions_possible, "no version satisfies them together")
        by_meaning: dict[object, PipRequirement] = {}
        for requirement in same:
            by_meaning.setdefault(_meaning(requirement), requirement)
        distinct = list(by_meaning.values())
        addressed = [requirement for requirement in distinct if requirement.address is not None]
        if addressed:
            source = addressed[0]
            for other in distinct:
                if other.address is None and not other.specifiers and other.extras <= source.extras:
                    continue  # the address says more
                merged.append(other)
                if other.address is None and other.specifiers:
                    warnings.append(
                        f"{other.entry.place}: whether {other} holds for {source} ({source.entry.place}) cannot be told"
                        " from its address; both are kept"
                    )
        elif any(requirement.has_options for requirement in distinct):
            merged += distinct
        else:
            merged.append(_combined(distinct))
    return merged, warnings


def _combined(distinct: Sequence[PipRequirement]) -> PipRequirement:
    first = distinct[0]
    extras = frozenset(extra for requirement in distinct for extra in requirement.extras)
    specifiers = dict.fromkeys(
        specifier for requirement in distinct for specifier in sorted(requirement.specifiers, key=str)
    )
    for requirement in distinct:
        if requirement.extras == extras and set(requirement.specifiers) == specifiers.keys():
            return requirement
    text = first.written_name + (f"[{','.join(sorted(extras))}]" if extras else "")
    text += ",".join(map(str, specifiers)) + (f"; {first.marker}" if first.marker else "")
    versions = SpecifierSet(",".join(map(str, specifiers)))
    return PipRequirement(
        Entry(text, first.entry.place), first.written_name, first.name, extras, versions, marker=first.marker
    )


def _meaning(requirement: PipRequirement) -> object:
    if requirement.has_options:
        return requirement.entry.text
    return requirement.extras, requirement.specifiers, requirement.address or requirement.name


def _one_address(requirements: Sequence[PipRequirement]) -> bool:
    return len({requirement.address for requirement in requirements} - {None}) <= 1


def _versions_possible(requirements: Sequence[PipRequirement]) -> bool:
    return not is_unsatisfiable(SpecifierSet(",".join(str(requirement.specifiers) for requirement in requirements)))


def _name_in(address: str) -> tuple[str, frozenset[str]]:
    """Name and extras from ``#egg=name[extra]``, else the name of a wheel; an empty name where neither is there."""
    egg = re.search(r"[#&]egg=([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[([^\]]*)\])?", address)
    if egg is not None:
        extras = (extra.strip() for extra in (egg[2] or "").split(","))
        return egg[1], frozenset(canonicalize_name(extra) for extra in extras if extra)
    try:
        return str(parse_wheel_filename(unquote(re.split(r"[?#]", address)[0].rpartition("/")[2]))[0]), frozenset()
    except InvalidWheelFilename:
        return "", frozenset()


def _without_egg(address: str) -> str:
    base, _, fragment = address.partition("#")
    kept = "&".join(part for part in fragment.split("&") if part and not part.startswith("egg="))
    return f"{base}#{kept}" if kept else base


def _travels(address: str) -> bool:
    scheme = address.lower().partition("://")[0].rpartition("+")[2]
    return "://" in address and scheme not in ("", "file")
