"""The local registry: packages under ``name:version`` in a folder that can be copied, rsynced and read by a person.

Layout: ``REGISTRY/models/NAME/VERSION/{model.json, files/<folder name>/…}``. A version becomes visible by one rename of
its complete folder, which also claims its number; only model.json changes afterwards (tags, deletion).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core.digests import sha256_of_file
from innereye_core.errors import IntegrityError, RegistryError, StorageError, UsageError
from innereye_core.manifest import MANIFEST_FILE, copy_package, open_package, read_record, record_bytes
from innereye_core.model import Package, PackageKind, RegisteredModel, Registration
from innereye_core.publishing import (
    TargetExistsError,
    make_folder,
    publish,
    staged_folder,
    storage_errors,
    write_file_atomically,
)

if TYPE_CHECKING:
    from innereye_core.contract.providers import Progress

REGISTRY_DIR_VARIABLE = "INNEREYE_REGISTRY_DIR"

_MODEL_FILE = "model.json"
_FILES = "files"
_LOCK_FILE = ".lock"
_LOCK_TIMEOUT_SECONDS = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Record:
    """What model.json says."""

    name: str
    version: int
    folder_name: PackageKind
    description: str
    tags: Mapping[str, str]
    properties: Mapping[str, str]
    created: str
    package_digest: str
    """``sha256:`` and the digest of the package's manifest.json."""
    deleted: str | None = None
    """When the version was deleted (UTC, ISO 8601); its files are gone then."""

    def model(self) -> RegisteredModel:
        return RegisteredModel(
            name=self.name,
            version=self.version,
            registry=LocalRegistry.name,
            folder_name=self.folder_name,
            description=self.description,
            tags=self.tags,
            properties=self.properties,
            created=self.created,
        )


def registry_folder() -> Path:
    """Where the local registry is: ``INNEREYE_REGISTRY_DIR``, else in the user's data folder. It need not exist."""
    configured = os.environ.get(REGISTRY_DIR_VARIABLE)
    if configured:
        return Path(configured).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("innereye", appauthor=False) / "registry"


class LocalRegistry:
    """Keeps packages in a folder of this machine. Many threads and processes may use it at once."""

    name = "local"

    def register(self, package: Package, registration: Registration, progress: Progress) -> RegisteredModel:
        """Copy the files that the package's manifest lists, and the manifest, as the next version of the name.

        Raises:
            UsageError: the name, a tag or a property is not acceptable.
            IntegrityError: a listed file is missing or changed.
            StorageError: the disk is full or not writable; no version is visible then.
        """
        _check_registration(registration)
        root = registry_folder()
        versions = _versions_folder(root, registration.name)
        with _writing(root), staged_folder(versions) as staged:
            files = staged / _FILES / package.manifest.kind
            files.mkdir(parents=True)
            draft = _Record(
                name=registration.name,
                version=0,
                folder_name=package.manifest.kind,
                description=registration.description,
                tags=dict(registration.tags),
                properties=dict(registration.properties),
                created=_now(),
                package_digest=copy_package(package, files, progress).digest,
            )
            make_folder(versions)
            while True:
                record = dataclasses.replace(draft, version=max(_version_numbers(versions), default=0) + 1)
                (staged / _MODEL_FILE).write_bytes(record_bytes(record))
                try:
                    publish(staged, versions / str(record.version), replace=False)
                except TargetExistsError:  # another process took the number
                    continue
                return record.model()

    def models(self) -> Sequence[RegisteredModel]:
        """Every version that is not deleted, by name and ascending version; warns of damaged ones."""
        root = registry_folder()
        found = []
        with _reading(root):
            for name in _names(root):
                versions = _versions_folder(root, name)
                for version in sorted(_version_numbers(versions)):
                    try:
                        record = _read(versions / str(version))
                    except IntegrityError as error:
                        _log.warning("%s", error)
                        continue
                    if record is not None and record.deleted is None:
                        found.append(record.model())
        return found

    def get(self, name: str, version: int | None) -> RegisteredModel:
        """One version; the highest that is not deleted for None.

        Raises:
            RegistryError: there is none, or it was deleted.
            IntegrityError: its model.json is damaged.
        """
        return _find(name, version).model()

    def folder(self, model: RegisteredModel) -> Path:
        """The package's folder, which is not to be changed.

        Raises:
            RegistryError: there is no such version, or it was deleted.
            IntegrityError: its manifest is missing or not the one that was registered.
        """
        record = _find(model.name, model.version)
        folder = _version_folder(record) / _FILES / record.folder_name
        manifest = folder / MANIFEST_FILE
        with _reading(registry_folder()):
            if not manifest.is_file():
                raise IntegrityError(f"{manifest}: is missing; delete {model.id} and register the package again")
            if f"sha256:{sha256_of_file(manifest)}" != record.package_digest:
                raise IntegrityError(
                    f"{manifest}: is not what was registered as {model.id}; register the package again"
                )
        return folder

    def fetch(self, model: RegisteredModel, folder: Path, progress: Progress) -> None:
        """Copy the package's files into ``folder``, which exists and is empty, checking every digest.

        Raises:
            RegistryError: there is no such version, or it was deleted.
            IntegrityError: a file is missing or changed.
            StorageError: the disk is full or not writable.
        """
        copy_package(open_package(self.folder(model)), folder, progress)

    def tag(self, model: RegisteredModel, tags: Mapping[str, str]) -> RegisteredModel:
        """Add or replace tags, and return the model as it is afterwards.

        Raises:
            UsageError: a tag is not acceptable.
            RegistryError: there is no such version, or it was deleted.
            StorageError: the disk is full or not writable; the tags are what they were before.
        """
        _check_labels("tag", tags)
        with _locked(model):
            record = _find(model.name, model.version)
            tagged = dataclasses.replace(record, tags={**record.tags, **tags})
            _write(tagged)
        return tagged.model()

    def delete(self, model: RegisteredModel) -> None:
        """Remove a version's files. A tombstone stays, so that its number is never used again.

        Raises:
            RegistryError: there is no such version, or it was deleted.
            StorageError: the disk is full or not writable.
        """
        with _locked(model):
            try:
                _write(dataclasses.replace(_find(model.name, model.version), deleted=_now()))
            finally:
                _remove_files_of_deleted(model.name)


# --- reading ----------------------------------------------------------------------------------------------------------


def _versions_folder(root: Path, name: str) -> Path:
    return root / "models" / name


def _version_folder(record: _Record) -> Path:
    return _versions_folder(registry_folder(), record.name) / str(record.version)


def _names(root: Path) -> list[str]:
    """Names of models, sorted."""
    try:
        folders = [path for path in (root / "models").iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return []
    for path in folders:
        if not (_is_model_name(path.name) and path.is_dir()):
            _log.warning("%s is not the folder of a model; ignored", path)
    return sorted(path.name for path in folders if _is_model_name(path.name) and path.is_dir())


def _version_numbers(versions: Path) -> list[int]:
    """Numbers that are taken, in no order, whatever is in their folders."""
    try:
        names = [path.name for path in versions.iterdir()]
    except FileNotFoundError:
        return []
    numbers = [name for name in names if re.fullmatch("[1-9][0-9]*", name)]
    for name in set(names) - set(numbers):
        if not name.startswith("."):
            _log.warning("%s is not a version of a model; ignored", versions / name)
    return [int(number) for number in numbers]


def _read(folder: Path) -> _Record | None:
    """The record of a version's folder; None, with a warning, where it has none.

    Raises:
        IntegrityError: model.json is damaged.
    """
    path = folder / _MODEL_FILE
    if not path.is_file():
        _log.warning("%s has no %s; ignored", folder, _MODEL_FILE)
        return None
    record = read_record(path, _Record)
    if (record.name, str(record.version)) != (folder.parent.name, folder.name):
        raise IntegrityError(f"{path}: describes {record.name}:{record.version}; put the folder back to its own place")
    return record


def _find(name: str, version: int | None) -> _Record:
    """The record of a version that is not deleted; of the highest one for None.

    Raises:
        RegistryError: there is none.
        IntegrityError: its model.json is damaged.
    """
    root = registry_folder()
    versions = _versions_folder(root, name)
    with _reading(root):
        taken = sorted(_version_numbers(versions), reverse=True) if _is_model_name(name) else []
        deleted = None
        for number in taken if version is None else [version] if version in taken else []:
            record = _read(versions / str(number))
            if record is not None and record.deleted is None:
                return record
            deleted = deleted or record
    reason = f"{deleted.name}:{deleted.version} was deleted on {deleted.deleted}" if deleted else "there is none"
    raise _not_found(root, f"{name}:{'latest' if version is None else version}", reason)


def _not_found(root: Path, model_id: str, reason: str) -> RegistryError:
    return RegistryError(
        f"{model_id} is not in the local registry {root}: {reason}; "
        f"see 'innereye models list', or set {REGISTRY_DIR_VARIABLE}"
    )


# --- changing ---------------------------------------------------------------------------------------------------------


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write(record: _Record) -> None:
    write_file_atomically(_version_folder(record) / _MODEL_FILE, record_bytes(record))


def _remove_files_of_deleted(name: str) -> None:
    """Remove the files of every deleted version of the name, also where an earlier deletion was interrupted."""
    versions = _versions_folder(registry_folder(), name)
    for number in _version_numbers(versions):
        files = versions / str(number) / _FILES
        with contextlib.suppress(IntegrityError):
            record = _read(files.parent)
            if record is not None and record.deleted is not None and files.exists():
                shutil.rmtree(files)


@contextlib.contextmanager
def _locked(model: RegisteredModel) -> Iterator[None]:
    """Hold the lock of all versions of a model's name, in the folder that they have in common."""
    from filelock import FileLock, Timeout

    root = registry_folder()
    versions = _versions_folder(root, model.name)
    if not (_is_model_name(model.name) and versions.is_dir()):  # taking the lock would make the folder
        raise _not_found(root, model.id, "there is none")
    with _writing(root), contextlib.ExitStack() as stack:
        try:
            stack.enter_context(FileLock(versions / _LOCK_FILE, timeout=_LOCK_TIMEOUT_SECONDS))
        except Timeout as error:
            raise RegistryError(f"{model.id}: another process has held {error.lock_file} for long; try again") from None
        yield


@contextlib.contextmanager
def _writing(root: Path) -> Iterator[None]:
    """Name the registry, and how to choose another, where it cannot be written."""
    try:
        with storage_errors(str(root)):
            yield
    except StorageError as error:
        raise StorageError(f"{error} (the local registry is {root}; {REGISTRY_DIR_VARIABLE} names another)") from error


@contextlib.contextmanager
def _reading(root: Path) -> Iterator[None]:
    with storage_errors(f"the local registry {root} ({REGISTRY_DIR_VARIABLE} names another)", doing="read"):
        yield


# --- what is acceptable -----------------------------------------------------------------------------------------------


def _is_model_name(name: str) -> bool:
    from innereye_core.config import MODEL_NAME_PATTERN

    return re.fullmatch(MODEL_NAME_PATTERN, name) is not None


def _check_registration(registration: Registration) -> None:
    if not _is_model_name(registration.name):
        raise UsageError(
            f"{registration.name!r} cannot be the name of a model; use letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit, 255 at most"
        )
    if not _is_text(registration.description):
        raise UsageError(f"the description {registration.description!r} must be a text")
    _check_labels("tag", registration.tags)
    _check_labels("property", registration.properties)


def _check_labels(kind: str, labels: Mapping[str, str]) -> None:
    for key, value in labels.items():
        if not _is_text(key) or not key or "=" in key or "\n" in key or "\r" in key:
            raise UsageError(f"{kind} {key!r}: a name must be a text without '=' and line breaks, and not empty")
        if not _is_text(value):
            raise UsageError(f"{kind} {key!r}: the value {value!r} must be a text")


def _is_text(value: object) -> bool:
    """Whether this is a string that UTF-8 can write; bytes from a command line in another encoding are not."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False
