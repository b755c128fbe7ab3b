"""Which files of a folder of source code travel in a package."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from innereye_core.errors import InputError

_CACHES = {"__pycache__"}
_BYTECODE = {".pyc", ".pyo"}


def source_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file below ``folder`` with its relative POSIX path, sorted; without bytecode and hidden files.

    Raises:
        InputError: a link leads to a folder, or out of this one, so that a copy would not be what the code is.
    """
    inside = folder.resolve()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") or part in _CACHES for part in relative.parts)
        if hidden or path.suffix in _BYTECODE:
            continue
        if path.is_symlink() and path.is_dir():
            raise InputError(f"{path}: links to a folder, {path.resolve()}; put a copy of that folder in its place")
        if not path.is_file():
            continue
        if not path.resolve().is_relative_to(inside):
            raise InputError(f"{path}: links to a file outside {folder}; copy that file into the folder")
        yield path, relative.as_posix()


def source_digest(folder: Path) -> str:
    """Hex SHA-256 over paths and contents of :func:`source_files`."""
    digest = hashlib.sha256()
    for path, relative in source_files(folder):
        digest.update(relative.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
