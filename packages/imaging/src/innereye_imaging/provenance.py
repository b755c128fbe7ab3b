"""What a result was made with: the digest of the package, and the versions of the software."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from innereye_core.manifest import MANIFEST_FILE, open_package

_PYTHON = "python"
_TOOLBOX = "innereye-"
_ALWAYS = (_PYTHON, "innereye-core", "innereye-imaging", "numpy")


@dataclass(frozen=True)
class Version:
    """A distribution, or Python."""

    name: str
    here: str | None
    """What runs here; None where that is not known."""
    packaged: str | None
    """What was installed where the model was packaged; None where that is not known."""


@dataclass(frozen=True)
class Provenance:
    """What a result was made with."""

    digest: str | None
    """Of the package's manifest; None where there is no package."""
    versions: tuple[Version, ...]


def provenance_of(folder: Path | None) -> Provenance:
    """What the package in a folder, if there is one, and this process are made of.

    Raises:
        IntegrityError: the manifest is damaged.
    """
    if folder is None or not (folder / MANIFEST_FILE).is_file():
        return Provenance(None, tuple(Version(name, _version_here(name), None) for name in _ALWAYS))
    package = open_package(folder)
    packaged = package.manifest.versions
    names = [*_ALWAYS, *(name for name in packaged if name not in _ALWAYS)]
    return Provenance(package.digest, tuple(Version(name, _version_here(name), packaged.get(name)) for name in names))


def _version_here(distribution: str) -> str | None:
    if distribution == _PYTHON:
        return platform.python_version()
    if distribution.startswith(_TOOLBOX):
        # What is imported may be a package's own copy, whatever else is installed.
        module = sys.modules.get(distribution.replace("-", "_"))
        return None if module is None else str(module.__version__)
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
