"""All distributions of the repository have the same version, and pin one another to it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from innereye_core import __version__

ROOT = Path(__file__).resolve().parents[3]
PROJECTS = sorted([*ROOT.glob("packages/*/pyproject.toml"), *ROOT.glob("plugins/*/pyproject.toml")])

pytestmark = pytest.mark.skipif(not PROJECTS, reason="not in a checkout of the repository")


def project(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads(path.read_text())["project"]
    return content


def test_every_room_is_looked_at() -> None:
    assert {"innereye-core", "innereye-imaging", "innereye-segmentation", "innereye-demo"} <= {
        project(path)["name"] for path in PROJECTS
    }


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_distribution_is_named_for_its_room(path: Path) -> None:
    assert project(path)["name"] == f"innereye-{path.parent.name}"


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_version_of_the_distribution(path: Path) -> None:
    assert project(path)["version"] == __version__


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_version_that_the_import_package_states(path: Path) -> None:
    init = path.parent / "src" / f"innereye_{path.parent.name}" / "__init__.py"
    stated = re.findall(r'^__version__ = "(.+)"$', init.read_text(), re.MULTILINE)
    assert stated == [__version__]


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_pins_between_distributions(path: Path) -> None:
    pins = [pin for pin in project(path)["dependencies"] if pin.startswith("innereye-")]
    assert [pin.partition("==")[2] for pin in pins] == [__version__] * len(pins)
    assert bool(pins) == (path.parent.name != "core")


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_licence_and_python_are_the_same_everywhere(path: Path) -> None:
    stated = project(path)
    assert (stated["license"], stated["requires-python"]) == ("MIT", ">=3.11")
    assert (path.parent / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (path.parent / "src" / f"innereye_{path.parent.name}" / "py.typed").is_file()
