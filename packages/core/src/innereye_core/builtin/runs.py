"""The local run source: a training run is a folder, described by run.json."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from innereye_core.candidates import CHECKPOINT_FOLDER
from innereye_core.config_files import MODEL_FILE, read_json_object
from innereye_core.errors import InputError, StorageError
from innereye_core.model import Run
from innereye_core.publishing import storage_errors, write_file_atomically

_log = logging.getLogger(__name__)

RUN_FILE = "run.json"


class LocalRuns:
    """Runs in folders. Cross-validation folds are sub-folders named 0, 1, 2 and so on."""

    name = "local"
    registry = "local"

    def current(self) -> Run | None:
        """A process is never part of a local run."""
        return None

    def open(self, reference: str) -> Run | None:
        """The run in the folder ``reference``; None where there is no such folder, or nothing of a run in it."""
        folder = Path(reference).resolve()
        parent = _parent_folder(folder)
        if not folder.is_dir() or not (parent is not None or _looks_like_run(folder)):
            return None
        return _described(folder, parent=None if parent is None else _described(parent))

    def children(self, run: Run) -> Sequence[Run]:
        """Sub-folders named by a number, in numeric order."""
        return [_described(folder, parent=run) for folder in _fold_folders(run.folder)]

    def add_tags(self, run: Run, tags: Mapping[str, str]) -> Run:
        """Add or replace tags in run.json."""
        with _locked(run.folder):
            document = _read(run.folder / RUN_FILE) or _document(run)
            document["tags"] = {**document["tags"], **tags}
            _write(run.folder, document)
        return dataclasses.replace(run, tags=document["tags"])


def _is_fold(name: str) -> bool:
    return name.isascii() and name.isdigit() and (name == "0" or not name.startswith("0"))


def _fold_folders(folder: Path) -> list[Path]:
    folds = [path for path in folder.iterdir() if path.is_dir() and _is_fold(path.name)]
    return sorted(folds, key=lambda path: int(path.name))


def _looks_like_run(folder: Path) -> bool:
    """Whether it is right to make a run.json there."""
    named = any((folder / name).exists() for name in (RUN_FILE, MODEL_FILE, CHECKPOINT_FOLDER))
    return named or bool(_fold_folders(folder))


def _parent_folder(folder: Path) -> Path | None:
    above = folder.parent
    is_run = (above / RUN_FILE).is_file() or (above / MODEL_FILE).is_file()
    return above if _is_fold(folder.name) and is_run else None


def _described(folder: Path, parent: Run | None = None) -> Run:
    """The run in ``folder`` as run.json describes it, which is made if missing."""
    document = _read(folder / RUN_FILE)
    fold = folder.name if parent is not None else None
    if document is None:
        name = folder.name if parent is None else f"{parent.name}_{fold}"
        made = Run(
            id=f"{name}_{secrets.token_hex(4)}",
            name=name,
            folder=folder,
            source=LocalRuns.name,
            parent=None if parent is None else parent.id,
        )
        document = _document(made)
        try:
            with _locked(folder):
                document = _read(folder / RUN_FILE) or document  # another process may have just made it
                _write(folder, document)
        except StorageError as error:
            _log.warning("the run keeps no record of itself: %s", error)
    return Run(
        id=document["id"],
        name=document["name"],
        folder=folder,
        source=LocalRuns.name,
        status=document["status"],
        tags=document["tags"],
        properties=document["properties"],
        parent=document["parent"] or (None if parent is None else parent.id),
        fold=fold,
        inherits_from=None if parent is None else parent.folder,
    )


def _document(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "name": run.name,
        "status": run.status,
        "tags": dict(run.tags),
        "properties": dict(run.properties),
        "parent": run.parent,
    }


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    document = read_json_object(path)
    defaults: dict[str, Any] = {"id": None, "name": path.parent.name, "status": "unknown", "parent": None}
    document = {**defaults, "tags": {}, "properties": {}, **document}
    for key in ("id", "name", "status"):
        if not isinstance(document[key], str) or not document[key]:
            raise InputError(f"{path}: {key}: must be a text, not {document[key]!r}")
    for key in ("tags", "properties"):
        if not isinstance(document[key], dict):
            raise InputError(f"{path}: {key}: must hold names and texts, not {document[key]!r}")
        document[key] = {str(name): str(value) for name, value in document[key].items()}
    if document["parent"] is not None and not isinstance(document["parent"], str):
        raise InputError(f"{path}: parent: must be the id of a run or null, not {document['parent']!r}")
    return document


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's run.json."""
    from filelock import FileLock

    with storage_errors(str(folder / RUN_FILE)), FileLock(folder / f".{RUN_FILE}.lock"):
        yield


def _write(folder: Path, document: dict[str, Any]) -> None:
    content = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    write_file_atomically(folder / RUN_FILE, content.encode())
