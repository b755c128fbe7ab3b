"""Says whether any version can satisfy a set of pip's version specifiers (PEP 440)."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version


def is_unsatisfiable(specifiers: SpecifierSet) -> bool:
    """Whether no version, pre-releases included, satisfies all specifiers.

    packaging answers that itself from 26.1 on; before, the versions around each boundary are tried.
    """
    if hasattr(specifiers, "is_unsatisfiable"):
        return specifiers.is_unsatisfiable()
    return no_boundary_satisfies(specifiers)


def no_boundary_satisfies(specifiers: SpecifierSet) -> bool:
    """Whether none of the versions at and around the boundaries that the specifiers name satisfies all of them.

    Between two neighbouring boundaries all specifiers keep their answer, so that one version from each gap stands for
    all of its versions.
    """
    exact = [specifier.version for specifier in specifiers if specifier.operator == "==="]
    try:
        boundaries = [Version(specifier.version.removesuffix(".*")) for specifier in specifiers]
    except InvalidVersion:  # only === takes other text; it is compared as a string
        return len({text.lower() for text in exact}) != 1 or len(exact) != len(list(specifiers))
    if exact:
        return not specifiers.contains(exact[0], prereleases=True)
    far = 2 + max((number for version in boundaries for number in _numbers(version)), default=0)
    candidates = {"0", *(near for version in boundaries for near in _neighbours(version, far))}
    return not any(specifiers.contains(candidate, prereleases=True) for candidate in candidates)


def _numbers(version: Version) -> Iterator[int]:
    yield from version.release
    yield version.pre[1] if version.pre else 0
    yield version.post or 0
    yield version.dev or 0


def _neighbours(version: Version, far: int) -> Iterator[str]:
    """The version itself and versions just below and above it, on every level from release to dev."""
    yield str(version)
    same = version.release
    while len(same) > 1 and same[-1] == 0:  # 1.0.0 is 1
        same = same[:-1]
    *leading, last = version.release
    below = [(*same[:-1], same[-1] - 1, far)] if same[-1] else []
    for release in (same, (*version.release, 0, 1), (*version.release, far), (*leading, last + 1), *below):
        yield from _around(f"{version.epoch}!{'.'.join(map(str, release))}", version, far)


def _around(release: str, version: Version, far: int) -> Iterator[str]:
    letters = ("a", "b", "rc")
    pre_numbers = {0, far} | ({version.pre[1], version.pre[1] + 1} if version.pre else set())
    post_numbers = {0, far} | ({version.post, version.post + 1} if version.post is not None else set())
    dev_numbers = {0, far} | ({version.dev, version.dev + 1} if version.dev is not None else set())
    for pre in ("", *(f"{letter}{number}" for letter in letters for number in sorted(pre_numbers))):
        for post in ("", *(f".post{number}" for number in sorted(post_numbers))):
            for dev in ("", *(f".dev{number}" for number in sorted(dev_numbers))):
                yield f"{release}{pre}{post}{dev}"
