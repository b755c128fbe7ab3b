"""The manifest: what belongs to a package, file by file, and whether the folder still holds exactly that."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from innereye_core.digests import copy_with_digest, sha256_of_file
from innereye_core.errors import InputError, IntegrityError
from innereye_core.model import FileRecord, Manifest, Package
from innereye_core.publishing import storage_errors

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from innereye_core.contract.providers import Progress

MANIFEST_FILE = "manifest.json"
MAX_PATH_LENGTH = 260
"""Longest path in a package, in characters: what every registry and file system that we know can hold."""
UNPLANNED_ROLE = "other"
"""Role of a file that a packager added by itself."""

_SCHEMA_VERSION = 1
_CODE_FOLDERS = ("InnerEye", "checkpoints")
_IMPORTABLE = (".py", ".pyc", ".so", ".pyd")
_PROBLEMS_SHOWN = 5

T = TypeVar("T", bound="DataclassInstance")


def write_manifest(folder: Path, draft: Manifest, roles: Mapping[str, str]) -> Package:
    """Write manifest.json for a folder that is otherwise complete.

    Args:
        folder: the package folder, not yet published.
        draft: everything that the manifest says beside ``files``, which are ignored here and taken from the folder.
        roles: path (relative, POSIX) → role, for every file that was planned.

    Returns:
        The package, as it is read back.

    Raises:
        InputError: a file's name cannot be kept everywhere.
        IntegrityError: a planned file is missing, or something is neither a file nor a folder.
        StorageError: the disk failed.
    """
    files = []
    for path, entry in sorted(_entries(folder)):
        if path == MANIFEST_FILE:
            continue
        if not entry.is_file(follow_symlinks=False):
            raise IntegrityError(f"{folder}: {_shown(path)} is a link or a device; a package holds plain files only")
        problem = _path_problem(path)
        if problem:
            raise InputError(f"{folder}: {_shown(path)} {problem}; rename the file")
        size = entry.stat(follow_symlinks=False).st_size
        files.append(FileRecord(path, sha256_of_file(folder / path), size, roles.get(path, UNPLANNED_ROLE)))
    missing = sorted(roles.keys() - {file.path for file in files})
    if missing:
        raise IntegrityError(f"{folder}: {_shown(missing[0])} is missing; the packager must write every planned file")
    manifest = dataclasses.replace(draft, files=tuple(files), versions=dict(sorted(draft.versions.items())))
    target = folder / MANIFEST_FILE
    with storage_errors(str(target)):
        target.write_bytes(record_bytes(manifest))
    return open_package(folder)


def open_package(folder: Path) -> Package:
    """Open a package folder; what it says about itself is checked, its files are not (see :func:`verify`).

    Raises:
        InputError: the folder is not a package.
        IntegrityError: its manifest is damaged.
    """
    return Package(folder, read_manifest(folder))


def read_manifest(folder: Path) -> Manifest:
    """Read a package's manifest.json.

    Raises:
        InputError: the folder is not a package.
        IntegrityError: the file is damaged: not JSON, a key duplicate, unknown or missing, a value impossible.
    """
    path = folder / MANIFEST_FILE
    try:
        reason = (
            None if path.is_file() else f"it has no {MANIFEST_FILE}" if folder.is_dir() else "there is no such folder"
        )
    except OSError as error:
        reason = f"it cannot be read ({error.strerror})"
    if reason:
        raise InputError(f"{folder} is not a package: {reason}; give a final_model or final_ensemble_model folder")
    manifest = read_record(path, Manifest)
    for key, problem in _impossible_values(manifest):
        raise IntegrityError(f"{path}: {key} {problem}; restore the file, or package the model again")
    return manifest


def verify(package: Package) -> tuple[str, ...]:
    """Check that the folder holds what its manifest lists, and no code beside it.

    Returns:
        Warnings, one line each: files that are not listed and do no harm, such as a written segmentation.

    Raises:
        IntegrityError: a listed file is missing or changed, or lies outside the folder; or there is an unlisted file
            where code or checkpoints are, or an unlisted Python file anywhere.
    """
    manifest, folder = package.manifest, package.folder
    problems = [problem for record in manifest.files if (problem := _record_problem(folder, record))]
    listed = {record.path for record in manifest.files} | {MANIFEST_FILE}
    warnings: list[str] = []
    for path, entry in sorted(_entries(folder)):
        if path in listed:
            continue
        message = f"{_shown(path)} is not listed in {MANIFEST_FILE}"
        (problems if _may_hold_code(path, entry, manifest) else warnings).append(message)
    if problems:
        shown = "; ".join(problems[:_PROBLEMS_SHOWN])
        more = f"; and {len(problems) - _PROBLEMS_SHOWN} more" if len(problems) > _PROBLEMS_SHOWN else ""
        raise IntegrityError(f"{folder} is not the package that was made: {shown}{more}; download or package it again")
    return tuple(warnings)


def copy_package(package: Package, folder: Path, progress: Progress) -> Package:
    """Copy what the manifest lists, and the manifest, checking every digest on the way.

    Args:
        package: what to copy.
        folder: where to; exists and is empty.
        progress: where to say how many files are copied.

    Raises:
        IntegrityError: a listed file is missing or changed; ``folder`` is incomplete then.
        StorageError: the disk failed; ``folder`` is incomplete then.
    """
    with progress.track(f"copy {package.manifest.kind}", len(package.manifest.files)) as copied_files:
        for record in package.manifest.files:
            problem = _place_problem(package.folder, record)
            if problem is None:
                digest = _copy(package.folder / record.path, folder / record.path)
                problem = None if digest == record.sha256 else f"{record.path} has changed"
            if problem:
                raise IntegrityError(f"{package.folder} is not the package that was made: {problem}; package it again")
            copied_files(1)
    _copy(package.folder / MANIFEST_FILE, folder / MANIFEST_FILE)
    copied = open_package(folder)
    if copied.manifest != package.manifest:
        raise IntegrityError(f"{package.folder}: {MANIFEST_FILE} has changed since it was read; try again")
    return copied


def _copy(source: Path, target: Path) -> str:
    try:
        reading = source.open("rb")
    except OSError as error:
        raise IntegrityError(f"{source}: cannot be read: {error.strerror}; make it readable") from error
    with reading, storage_errors(str(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as writing:
            return copy_with_digest(reading, writing)


# --- what is in a folder ----------------------------------------------------------------------------------------------


def _entries(folder: Path, prefix: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Path (relative, POSIX) of everything below a folder that is not itself a folder; links are not followed."""
    try:
        with os.scandir(folder) as opened:
            entries = list(opened)
    except OSError as error:
        raise IntegrityError(f"{folder}: cannot be read: {error.strerror}; make it readable") from error
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(Path(entry.path), f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry


def _may_hold_code(path: str, entry: os.DirEntry[str], manifest: Manifest) -> bool:
    top = path.partition("/")[0]
    can_be_imported = path.lower().endswith(_IMPORTABLE) or Path(entry.path).is_dir()  # a link to a folder can, too
    return top in (*_CODE_FOLDERS, manifest.extra_code) or can_be_imported


def _record_problem(folder: Path, record: FileRecord) -> str | None:
    problem = _place_problem(folder, record)
    if problem:
        return problem
    try:
        return None if sha256_of_file(folder / record.path) == record.sha256 else f"{record.path} has changed"
    except OSError as error:
        return f"{record.path} cannot be read ({error.strerror})"


def _place_problem(folder: Path, record: FileRecord) -> str | None:
    """What is wrong with a listed file, as far as it shows without reading it."""
    try:
        place = Path(os.path.realpath(folder / record.path, strict=True))
        status = place.stat()
    except OSError as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        return f"{record.path} is missing" if missing else f"{record.path} cannot be read ({error.strerror})"
    if not place.is_relative_to(os.path.realpath(folder)):
        return f"{record.path} is a link that leaves the folder"
    if not stat.S_ISREG(status.st_mode):
        return f"{record.path} is not a file"
    if status.st_size != record.size:
        return f"{record.path} has changed ({status.st_size} bytes instead of {record.size})"
    return None


def _path_problem(path: str) -> str | None:
    from innereye_core.config import relative_posix_path

    try:
        relative_posix_path(path)
    except ValueError as error:
        return str(error)
    if not path.isprintable():
        return "has a character that cannot be shown"
    if len(path) > MAX_PATH_LENGTH:
        return f"has {len(path)} characters, more than {MAX_PATH_LENGTH}"
    return None


def _shown(path: str) -> str:
    return path if path.isprintable() else ascii(path)


def _impossible_values(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Key and problem of every value that has the right type, but cannot be."""
    repeated = Counter(record.path for record in manifest.files)
    for i, record in enumerate(manifest.files):
        key, shown = f"files.{i}", _shown(record.path)
        problem = _path_problem(record.path)
        if problem is None and (str(PurePosixPath(record.path)) != record.path or record.path in (".", MANIFEST_FILE)):
            problem = "is not the path of a file beside the manifest"
        if problem:
            yield f"{key}.path", f"{shown!r} {problem}"
        if repeated[record.path] > 1:
            yield f"{key}.path", f"{shown!r} is listed twice"
        if not re.fullmatch(r"[0-9a-f]{64}", record.sha256):
            yield f"{key}.sha256", f"({shown}) is not a SHA-256 digest of 64 lower-case hexadecimal digits"
        if record.size < 0:
            yield f"{key}.size", f"({shown}) is negative"
    for i, member in enumerate(manifest.members):
        if member.path not in repeated:
            yield f"members.{i}.path", f"{_shown(member.path)!r} is not among the files"
    if manifest.extra_code is not None and not manifest.extra_code.isidentifier():
        yield "extra_code", f"{manifest.extra_code!r} is not the import name of a package"


# --- JSON files that the tools write for themselves -------------------------------------------------------------------


def record_bytes(record: DataclassInstance) -> bytes:
    """A dataclass as the content of a JSON file: schema_version, then its fields in their order."""
    from innereye_core.config import as_plain

    document = {"schema_version": _SCHEMA_VERSION, **as_plain(record)}
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_record(path: Path, kind: type[T]) -> T:
    """Read such a file, refusing everything that is not exactly the dataclass ``kind``.

    Raises:
        IntegrityError: the file cannot be read, is not JSON, is newer than this program, or has a key that is
            duplicate, unknown or missing, or a value of another type.
    """
    from pydantic import ValidationError

    from innereye_core.config_files import read_json_object

    try:
        document = read_json_object(path)
        _check_schema_version(path, document.pop("schema_version", None))
        # JSON mode, because strict Python mode would refuse a list where a tuple is meant.
        record: T = _adapter(kind).validate_json(json.dumps([document], allow_nan=False))[0]
        return record
    except ValidationError as error:
        raise IntegrityError(f"{path}: {_explained(error)}; restore the file") from None
    except InputError as error:
        raise IntegrityError(str(error)) from None
    except (ValueError, RecursionError) as error:  # a number without end, NaN, brackets without end
        raise IntegrityError(f"{path}: is not valid JSON: {error}; restore the file") from None


def _check_schema_version(path: Path, version: object) -> None:
    if type(version) is not int or version < 1:
        raise IntegrityError(
            f"{path}: schema_version: must be a whole number from 1, not {version!r}; restore the file"
        )
    if version > _SCHEMA_VERSION:
        raise IntegrityError(
            f"{path}: schema_version: {version} is newer than {_SCHEMA_VERSION}, the newest that this program reads; "
            "install a newer innereye-core"
        )


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    # A tuple of one, because pydantic takes a config for what is around dataclasses, and hands it down to them.
    return TypeAdapter(tuple[kind], config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))


def _explained(error: Any) -> str:
    problem = error.errors(include_url=False)[0]
    key = ".".join(str(step) for step in problem["loc"][1:])
    if problem["type"] == "unexpected_keyword_argument":
        return f"{key}: unknown key"
    if problem["type"] == "missing":
        return f"{key}: is required"
    value = repr(problem["input"])
    return f"{key}: {problem['msg']}, not {value if len(value) <= 60 else value[:60] + '…'}"
