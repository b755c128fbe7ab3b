"""Conda match specs: what is understood, conda's version order, and which specs contradict each other."""

from __future__ import annotations

from itertools import pairwise

import pytest

from innereye_core.environments.conda_specs import CondaSpec, builds_agree, channels_agree, parse_spec
from innereye_core.environments.conda_versions import CondaVersion, VersionSet, matching
from innereye_core.environments.located import Entry, Place
from innereye_core.errors import InputError


def parse(text: str) -> CondaSpec | None:
    return parse_spec(Entry(text, Place("environment.yml", 4)))


def understood(text: str) -> CondaSpec:
    spec = parse(text)
    assert spec is not None
    return spec


# --- spelling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "text", "condition", "build"),
    [
        ("numpy", "numpy", "", None),
        ("NumPy", "numpy", "", None),
        ("__cuda >=11", "__cuda>=11", ">=11", None),
        ("numpy=1.21", "numpy=1.21", "1.21.*", None),
        ("numpy = 1.21", "numpy=1.21", "1.21.*", None),
        ("numpy=1.21.*", "numpy=1.21.*", "1.21.*", None),
        ("numpy 1.21.*", "numpy 1.21.*", "1.21.*", None),
        ("numpy 1.21*", "numpy 1.21*", "1.21.*", None),
        ("numpy 1.21", "numpy 1.21", "==1.21", None),
        ("numpy ==1.21.0", "numpy==1.21.0", "==1.21.0", None),
        ("numpy >=1.2 , <2", "numpy>=1.2,<2", ">=1.2,<2", None),
        ("numpy=1.2|1.3", "numpy=1.2|1.3", "1.2.*|==1.3", None),
        ("numpy *", "numpy *", "", None),
        ("numpy=*=py38*", "numpy=*=py38*", "", "py38*"),
        ("numpy=1.21=*", "numpy=1.21=*", "==1.21", None),
        ("numpy=1.21=py38_0", "numpy=1.21=py38_0", "==1.21", "py38_0"),
        ("numpy==1.21=py38_0", "numpy==1.21=py38_0", "==1.21", "py38_0"),
        ("numpy  1.21  py38_0", "numpy 1.21 py38_0", "==1.21", "py38_0"),
        ("conda-forge::NumPy=1.2", "conda-forge::numpy=1.2", "1.2.*", None),
        ("numpy[version='>=1.2, <2',build=py38_0]", "numpy[version='>=1.2, <2',build=py38_0]", ">=1.2,<2", "py38_0"),
    ],
)
def test_specs_are_understood_and_tidied(written: str, text: str, condition: str, build: str | None) -> None:
    spec = understood(written)
    assert (spec.text, spec.condition, spec.build) == (text, condition, build)


@pytest.mark.parametrize(
    ("written", "channel"),
    [
        ("numpy", None),
        ("conda-forge::numpy", "conda-forge"),
        ("https://host.example/channel::numpy", "https://host.example/channel"),
        ('numpy[channel="pytorch"]', "pytorch"),
    ],
)
def test_the_channel_is_found(written: str, channel: str | None) -> None:
    assert understood(written).channel == channel


@pytest.mark.parametrize(
    "written",
    [
        "numpy>>1",
        "numpy=",
        "numpy=>1.2",
        "numpy>=1.2 <2",
        "numpy (>=1,<2)|3",
        "numpy==1.0|1.*.3",
        "numpy ^1\\.2$",
        "numpy~=1",
        "numpy~=1.2.*",
        "numpy=1.0+local",
        "numpy=1_2-3",
        "numpy@1.0",
        "numpy=1.2[build=x]",
        "numpy[md5=0123]",
        "numpy[version='1',version='2']",
        "numpy[version='1]",
        "numpy[version=é]",
        "https://host.example/linux-64/numpy-1.21-py38_0.tar.bz2",
        "${{ package }}",
    ],
)
def test_what_cannot_be_understood_is_left_to_conda(written: str) -> None:
    assert parse(written) is None


@pytest.mark.parametrize(
    "written", ["./numpy-1.21-0.conda", "numpy-1.21-0.tar.bz2", "/data/x.conda", "C:\\x.conda", "file:///x.conda"]
)
def test_files_of_this_machine_are_refused(written: str) -> None:
    with pytest.raises(InputError, match=r"^environment\.yml:4: .* is a file on this machine and does not travel"):
        parse(written)


# --- versions ---------------------------------------------------------------------------------------------------------

ASCENDING = """
0.4.1.rc 0.4.1 0.5a1 0.5b3 0.5c1 0.5 0.9.6 0.960923 1.0 1.1dev1 1.1_ 1.1a1 1.1.0dev1 1.1.a1 1.1.0rc1 1.1.0
1.1.0post1 1.1post1 1.2+a 1.2+b.1 1.2.1 1996.07.12 1!0.4.1 1!3.1.1.6 2!0.4.1
"""
"""The order that conda documents for its versions."""


def test_versions_are_ordered_as_conda_documents() -> None:
    versions = [CondaVersion.parse(text) for text in ASCENDING.split()]
    assert all(lower < higher for lower, higher in pairwise(versions))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.4", "0.4.0"),
        ("0.4.1.rc", "0.4.1.RC"),
        ("1.1.0dev1", "1.1.dev1"),
        ("1.1.0post1", "1.1.post1"),
        ("1-2", "1.2"),
    ],
)
def test_equal_versions(one: str, other: str) -> None:
    assert CondaVersion.parse(one) == CondaVersion.parse(other)
    assert CondaVersion.parse(one) != CondaVersion.parse(f"{other}.1")
    assert CondaVersion.parse(one) != one


@pytest.mark.parametrize("text", ["", ".", "1..2", "1.0+", "!1", "x!1", "1-2_3", "1.*", "é", "1.0+é"])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match=r"no version|mixes"):
        CondaVersion.parse(text)


def versions_of(spec: str) -> VersionSet:
    return understood(f"package {spec}").versions


@pytest.mark.parametrize(
    ("spec", "inside", "outside"),
    [
        (
            "=1.21",
            "1.21 1.21.0 1.21.9 1.21a1 1.21rc1 1.21dev1 1.21post1 1.21+cu113 1.21_",
            "1.20 1.210 1.22 2.21 1!1.21",
        ),
        ("=1.0", "1 1.0 1.0.5", "1.1 0.9"),
        ("=1.1.1k", "1.1.1k 1.1.1kx 1.1.1k.2", "1.1.1 1.1.1l 1.1.1j"),
        ("=1.0dev", "1.0dev 1.0dev1", "1.0 1.0a"),
        ("1.21", "1.21 1.21.0", "1.21.1 1.21+x"),
        ("==1.21", "1.21 1.21.0", "1.21.1"),
        ("!=1.21", "1.21.1 1.20", "1.21 1.21.0"),
        ("!=1.21.*", "1.20 1.22", "1.21 1.21.7"),
        (">1.2", "1.2.1 1.2post1 2", "1.2 1.2.0 1.2rc1"),
        (">=1.2", "1.2 1.3", "1.1 1.2rc1"),
        ("<1.2", "1.1 1.2rc1", "1.2 1.2.0"),
        ("<=1.2", "1.2.0 1.1", "1.2.1"),
        ("~=1.2.3", "1.2.3 1.2.9", "1.2.2 1.3 2.2.3"),
        (">=1,<2|>=3", "1 1.9 3 4", "0.9 2 2.9"),
        ("1.2|1.4.*", "1.2.0 1.4 1.4.2", "1.3 1.2.1"),
        ("*", "0 1!9", ""),
    ],
)
def test_which_versions_a_condition_allows(spec: str, inside: str, outside: str) -> None:
    versions = versions_of(spec)
    assert [text for text in inside.split() if CondaVersion.parse(text) not in versions] == []
    assert [text for text in outside.split() if CondaVersion.parse(text) in versions] == []


@pytest.mark.parametrize(
    ("spec", "inside"),
    [
        ("==1.2.*", "1.2 1.2.5"),
        (">=1.2.*", "1.2rc1 1.2 9"),
        (">1.2.*", "1.2.1 9"),
        ("<=1.2.*", "1 1.2.5"),
        ("<1.2.*", "1.1"),
    ],
)
def test_forms_that_solvers_read_differently_allow_what_any_of_them_does(spec: str, inside: str) -> None:
    assert all(CondaVersion.parse(text) in versions_of(spec) for text in inside.split())


def test_only_versions_are_in_a_set_of_versions() -> None:
    assert "1.2" not in matching("=", "1.2")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("=1.21", ">=1.24"),
        ("=1.21", "=1.22"),
        ("==1.21.0", "==1.21.1"),
        ("==1.21.0", "!=1.21"),
        (">1.2", "<1.2"),
        (">=1.2", "<1.2"),
        (">1.2", "<=1.2.0"),
        ("=1.2", "!=1.2.*"),
        ("1.2|1.3", ">=1.4"),
        ("<1|>3", "=2"),
        ("<1|<2|<=1.5", ">=2"),
        ("~=1.2.3", ">=1.3"),
        ("=1.2", ">=1!0"),
    ],
)
def test_contradictions(one: str, other: str) -> None:
    assert not versions_of(one) & versions_of(other)
    assert not versions_of(other) & versions_of(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (">=1.2", "<2"),
        ("=1.21", ">=1.21.3"),
        ("=1.21", "<1.21"),  # 1.21rc1
        ("=1.2", "!=1.2"),
        (">=1.2", "<=1.2.0"),
        (">1.2", "<1.2.0.0.1"),
        ("1.2|1.5", ">=1.4"),
        ("=1", "=1.2"),
        ("*", "==1.2"),
    ],
)
def test_conditions_that_can_hold_together(one: str, other: str) -> None:
    assert versions_of(one) & versions_of(other)


# --- builds and channels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ("py38_0", "py38_0", True),
        ("py38_0", "py39_0", False),
        ("py38*", "py38_0", True),
        ("py39_0", "py38*", False),
        ("*_cuda", "py38*", True),
        ("py38*", "py39*", False),
        ("*cpu", "*cuda", False),
        ("py3*", "py38*", True),
        ("^py3", "cuda", True),
    ],
)
def test_builds(one: str, other: str, agree: bool) -> None:
    assert builds_agree(understood(f"numpy[build={one}]"), understood(f"numpy[build={other}]")) is agree


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ("conda-forge::", "conda-forge::", True),
        ("conda-forge::", "", True),
        ("conda-forge::", "pytorch::", False),
        ("conda-forge::", "conda-forge/linux-64::", True),
        ("conda-forge::", "https://mirror.example/conda-forge/::", True),
        ("main::", "pkgs/main::", True),
        ("defaults::", "pkgs/main::", True),
    ],
)
def test_channels(one: str, other: str, agree: bool) -> None:
    assert channels_agree(understood(f"{one}numpy"), understood(f"{other}numpy")) is agree
