"""The files of packages as artifacts of a workspace: where they go, how they get there and back."""

from __future__ import annotations

import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from innereye_azureml import sdk
from innereye_azureml.blobs import BLOCK_BYTES, download, upload
from innereye_azureml.failures import DATA_SCIENTIST
from innereye_azureml.transfers import for_each, tracked_bytes
from innereye_core.errors import IntegrityError, RegistryError
from innereye_core.manifest import MANIFEST_FILE, open_package
from innereye_core.model import FileRecord, Package, PackageKind
from innereye_core.publishing import storage_errors

if TYPE_CHECKING:
    from innereye_azureml.sdk import RunState
    from innereye_core.contract.providers import Progress

_LOCAL_ORIGIN = "LocalUpload"
_BATCH = 50
"""How many artifacts the service makes in one request."""


@dataclass(frozen=True)
class Place:
    """Where the files of one package are."""

    origin: str
    container: str
    folder: str
    """``final_model``, or with folders above it."""

    @property
    def prefix(self) -> str:
        """The place in one string, as assets name it."""
        return f"{self.origin}/{self.container}/{self.folder}"


def place_outside_runs(kind: PackageKind) -> Place:
    """A new place that belongs to no run, named as azureml-core names them."""
    container = f"{datetime.now(UTC):%y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    return Place(_LOCAL_ORIGIN, container, kind)


def place_in_run(workspace: Any, run: RunState, kind: PackageKind) -> Place:
    """A place among the files of a run where nothing is yet.

    Files of runs cannot be overwritten, and some may be there: an earlier deployment, or an attempt that died. The
    service takes a place for a mere prefix, so no other path may begin with the same letters.

    Raises:
        RegistryError: the run's files cannot be listed.
    """
    with sdk.calling(f"list the files of run {run.id}"):
        taken = list(sdk.artifacts_client(workspace).get_file_paths(sdk.RUN_ORIGIN, run.container))
    folder: str = kind
    number = 1
    while any(path.startswith(folder) for path in taken):
        number += 1
        folder = f"deployment_{number}/{kind}"
    return Place(sdk.RUN_ORIGIN, run.container, folder)


# --- there ------------------------------------------------------------------------------------------------------------


def upload_package(workspace: Any, package: Package, place: Place, progress: Progress) -> None:
    """Upload what the manifest lists, and the manifest, and check that all of it is there.

    Raises:
        IntegrityError: a listed file is missing or changed.
        RegistryError: AzureML refuses or cannot be reached. What has arrived stays where nobody looks.
    """
    if open_package(package.folder).manifest != package.manifest:
        raise _changed(package, f"{MANIFEST_FILE} has changed")
    manifest = package.folder / MANIFEST_FILE
    digest = package.digest.removeprefix("sha256:")
    files = [*package.manifest.files, FileRecord(MANIFEST_FILE, digest, manifest.stat().st_size, "manifest")]
    description = f"upload {package.manifest.kind}"
    with _blobs() as blob, tracked_bytes(progress, description, sum(file.size for file in files)) as moved:
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            urls = _new_artifacts(workspace, place, [file.path for file in batch])

            def send(file: FileRecord, urls: dict[str, str] = urls) -> None:
                _upload_file(package, file, blob(urls[file.path]), moved)

            for_each(batch, send)
        _check_arrived(workspace, place, files, blob)


def _new_artifacts(workspace: Any, place: Place, paths: Sequence[str]) -> dict[str, str]:
    """Make artifacts without content; path → URL to write it."""
    names = {f"{place.folder}/{path}": path for path in paths}
    with sdk.calling(f"create files in {place.prefix}", role=DATA_SCIENTIST):
        made = sdk.artifacts_client(workspace).create_empty_artifacts(place.origin, place.container, list(names))
        return {path: made.artifact_content_information[name].content_uri for name, path in names.items()}


def _upload_file(package: Package, file: FileRecord, blob: Any, moved: Callable[[int], None]) -> None:
    with (
        _open_listed(package, file) as source,
        sdk.calling(f"upload {file.path}", role=DATA_SCIENTIST),
    ):
        if not upload(blob, source, file.sha256, moved):
            raise _changed(package, f"{file.path} has changed")


def _open_listed(package: Package, file: FileRecord) -> BinaryIO:
    """Open a listed file, which must be a plain one inside the package."""
    path = package.folder / file.path
    try:
        if not path.resolve(strict=True).is_relative_to(package.folder.resolve()):
            raise _changed(package, f"{file.path} is a link that leaves the folder")
        if not stat.S_ISREG(path.stat().st_mode):
            raise _changed(package, f"{file.path} is not a file")
        return path.open("rb")
    except OSError as error:
        raise _changed(package, f"{file.path} cannot be read ({error.strerror})") from None


def _changed(package: Package, problem: str) -> IntegrityError:
    return IntegrityError(f"{package.folder} is not the package that was made: {problem}; package it again")


def _check_arrived(workspace: Any, place: Place, files: Sequence[FileRecord], blob: Callable[[str], Any]) -> None:
    """Compare what the service has with what was to be uploaded: names and sizes."""
    urls = _listed(workspace, place)
    expected = {file.path: file.size for file in files}
    if urls.keys() != expected.keys():
        wrong = sorted(urls.keys() ^ expected.keys())
        raise RegistryError(f"{place.prefix}: {wrong[0]} did not arrive, or is not ours; run the same again")

    def check(path: str) -> None:
        with sdk.calling(f"look at the uploaded {path}"):
            size = blob(urls[path]).get_blob_properties().size
        if size != expected[path]:
            raise RegistryError(f"{path}: {size} of {expected[path]} bytes arrived; run the same again")

    for_each(expected, check)


# --- and back ---------------------------------------------------------------------------------------------------------


def fetch_package(workspace: Any, place: Place, folder: Path, progress: Progress, title: str) -> None:
    """Download the package in a place into an empty folder: the manifest, and what it lists.

    Args:
        workspace: where the place is.
        place: the place.
        folder: where to; exists and is empty.
        progress: where to say how far it is.
        title: how messages name the package, for example ``Prostate:892``.

    Raises:
        RegistryError: a file is not there any more, or cannot be had.
        IntegrityError: the manifest is damaged, or a file did not arrive completely.
        StorageError: the disk is full or not writable.
    """
    urls = _listed(workspace, place)

    with _blobs() as blob:

        def receive(path: str, moved: Callable[[int], None]) -> None:
            if path not in urls:
                raise RegistryError(f"{title}: {place.prefix}/{path} is not there any more; register the package again")
            target = folder / path
            with storage_errors(str(target)):
                target.parent.mkdir(parents=True, exist_ok=True)
            with sdk.calling(f"download {path} of {title}"):
                download(blob(urls[path]), target, moved)

        receive(MANIFEST_FILE, lambda count: None)
        files = open_package(folder).manifest.files
        with tracked_bytes(progress, f"download {title}", sum(file.size for file in files)) as moved:
            for_each(files, lambda file: receive(file.path, moved))


def _listed(workspace: Any, place: Place) -> dict[str, str]:
    """What is in a place: path below its folder → URL to read it."""
    with sdk.calling(f"list {place.prefix}"):
        found = sdk.artifacts_client(workspace).get_files_by_artifact_prefix_id(place.prefix)
    above = f"{place.folder}/"
    return {path.removeprefix(above): url for path, url in found if path.startswith(above)}


@contextmanager
def _blobs() -> Iterator[Callable[[str], Any]]:
    """Blob clients by SAS URL, which share their connections."""
    with sdk.blob_transport() as transport:
        yield lambda url: sdk.blob_client(url, transport, BLOCK_BYTES)
