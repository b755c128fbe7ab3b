"""Reads conda match specs as they stand in environment files, and says whether two can hold at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_

from innereye_core.environments.conda_versions import ANY_VERSION, VersionSet, matching
from innereye_core.environments.located import Entry, shown
from innereye_core.errors import InputError

_LOCAL_FILE = re.compile(r"(?i)[./~\\]|file:|[a-z]:[\\/]|[^:]*\.(?:conda|tar\.bz2)$")
_SPEC = re.compile(
    r"(?:(?P<channel>[^\s=<>!~\[\]]+)::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)"
    r"(?:\[(?P<keys>[^\[\]]+)\]|(?P<rest>[\s=<>!~][^\[\]]*)?)"
)
_KEY = re.compile(r"""\s*(?P<key>\w+)\s*=\s*(?:"(?P<a>[^"]*)"|'(?P<b>[^']*)'|(?P<c>[^\s,'"]+))\s*(?:,|$)""")
_OPERATOR = r"(?:==|!=|<=|>=|<|>|~=|=)?"
_CONDITION = rf"{_OPERATOR}(?:\d+!)?[^\s=<>!~,|()^$]+"
_VERSION_AND_BUILD = re.compile(rf"(?P<version>{_CONDITION}(?:[,|]{_CONDITION})*)(?:[ =](?P<build>[^\s=<>!~,|]+))?")

_SUBDIR = re.compile(r"/(?:noarch|(?:linux|osx|win|emscripten|wasi|freebsd|zos)-\w+)$")
_MULTICHANNELS = {"defaults", "local"}
"""Names that conda expands to several channels."""


@dataclass(frozen=True)
class CondaSpec:
    """One conda dependency: a package, and what is asked of it."""

    entry: Entry
    text: str
    """The spec with its name in small letters and without blanks around operators."""
    name: str
    channel: str | None
    condition: str
    """What is asked of the version, in one spelling: ``=1.21`` and ``1.21.*`` read the same."""
    versions: VersionSet
    build: str | None

    def __str__(self) -> str:
        return shown(self.text)

    @property
    def without_channel(self) -> tuple[str, str, str | None]:
        """What two specs share that differ at most in spelling and in the channel that they name."""
        return self.name, self.condition, self.build


def parse_spec(entry: Entry) -> CondaSpec | None:
    """Read a conda dependency; None where it cannot be understood and must be left to conda.

    Understood are a name alone, versions with every operator and with ``,`` and ``|``, exact and fuzzy ones
    (``=1.21`` is 1.21.*, but exact with a build), builds, ``channel::`` in front, and
    ``[version=…,build=…,channel=…]``.

    Raises:
        InputError: it is a file on this machine.
    """
    if _LOCAL_FILE.match(entry.text):
        raise InputError(
            f"{entry.place}: {entry} is a file on this machine and does not travel with the model; name the package and"
            " its version"
        )
    match = _SPEC.fullmatch(entry.text)
    keys = _bracket_keys(match["keys"]) if match is not None and match["keys"] else {}
    if match is None or keys is None:
        return None
    name = match["name"].lower()
    rest = _without_blanks(match["rest"] or "")
    try:
        condition, versions, build = _version_and_build(keys.get("version", rest))
    except ValueError:
        return None
    if match["keys"]:
        text = entry.text
    else:
        channel = f"{match['channel']}::" if match["channel"] else ""
        text = f"{channel}{name}{rest if not rest or rest[0] in '=<>!~' else f' {rest}'}"
    channel = keys.get("channel", match["channel"])
    return CondaSpec(entry, text, name, channel, condition, versions, keys.get("build", build))


def builds_agree(first: CondaSpec, second: CondaSpec) -> bool:
    """Whether a build may satisfy both; True where that is not certain."""
    ours, theirs = first.build, second.build
    if ours is None or theirs is None or "^" in ours + theirs:
        return True
    if "*" in ours and "*" in theirs:
        start, other_start = ours.partition("*")[0], theirs.partition("*")[0]
        end, other_end = ours.rpartition("*")[2], theirs.rpartition("*")[2]
        return (start.startswith(other_start) or other_start.startswith(start)) and (
            end.endswith(other_end) or other_end.endswith(end)
        )
    pattern, build = (ours, theirs) if "*" in ours else (theirs, ours)
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), build) is not None


def channels_agree(first: CondaSpec, second: CondaSpec) -> bool:
    """Whether a channel may be meant by both; True where that is not certain."""
    if first.channel is None or second.channel is None:
        return True
    ours, theirs = (_SUBDIR.sub("", channel.rstrip("/")).lower() for channel in (first.channel, second.channel))
    # A URL and a name, or "main" and "pkgs/main", may be one channel: that depends on the user's own .condarc.
    return ours.rpartition("/")[2] == theirs.rpartition("/")[2] or not _MULTICHANNELS.isdisjoint((ours, theirs))


def _bracket_keys(text: str) -> dict[str, str] | None:
    """The keys between brackets; None where there are others than those that can be compared."""
    keys: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _KEY.match(text, position)
        if match is None or match["key"] not in ("version", "build", "channel") or match["key"] in keys:
            return None
        keys[match["key"]] = match["a"] or match["b"] or match["c"] or ""
        position = match.end()
    if "version" in keys:
        keys["version"] = _without_blanks(keys["version"])
    return keys


def _without_blanks(condition: str) -> str:
    return " ".join(re.sub(r"\s*([<>=!~]+|[,|])\s*", r"\1", condition).split())


def _version_and_build(text: str) -> tuple[str, VersionSet, str | None]:
    """What ``text`` asks of version and build.

    Raises:
        ValueError: it cannot be understood.
    """
    if not text:
        return "", ANY_VERSION, None
    match = _VERSION_AND_BUILD.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no version with or without a build")
    version, build = match["version"], match["build"]
    if build is not None and re.fullmatch(r"=[^=,|]+", version):
        version = f"={version}"
    alternatives = [[_split(condition) for condition in part.split(",")] for part in version.split("|")]
    versions = reduce(or_, (reduce(and_, (matching(*pair) for pair in part)) for part in alternatives))
    spelling = "|".join(",".join(_spelling(*pair) for pair in part) for part in alternatives)
    return spelling, versions, None if build == "*" else build


def _split(condition: str) -> tuple[str, str]:
    version = condition.lstrip("=<>!~")
    return condition.removesuffix(version), version


def _spelling(operator: str, version: str) -> str:
    if version == "*":
        return ""
    if operator == "=" or (operator == "" and version.endswith("*")):
        return f"{version.removesuffix('*').removesuffix('.')}.*"
    return f"{operator or '=='}{version}"
