"""The folder that a scoring job runs in: the package as it is, and the images under names that tell nothing."""

from __future__ import annotations

import gzip
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core.errors import MissingPluginError
from innereye_core.manifest import copy_package
from innereye_core.publishing import storage_errors

if TYPE_CHECKING:
    from innereye_core.config import ModelConfig
    from innereye_core.contract.providers import Progress, Providers
    from innereye_core.registered_models import LoadedModel
    from innereye_imaging.geometry import Grid

RESULT = "outputs/segmentation.nii.gz"
"""Where the job writes: AzureML makes ``outputs/``, and keeps what is in it."""

_ENTRY_SCRIPT = "score.py"
_IMAGES = "images"
_GZIP_LEVEL = 1
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class StudyImage:
    """One channel of a study, found readable."""

    path: Path
    suffix: str
    """The ending that its format is known by, in lower case."""
    grid: Grid


@dataclass(frozen=True)
class Snapshot:
    """A folder that is ready to be sent."""

    folder: Path
    command: tuple[str, ...]
    """The script to run in it, and its arguments."""
    size_bytes: int


def read_study(images: Sequence[Path], config: ModelConfig, providers: Providers) -> tuple[StudyImage, ...]:
    """Check that there is one readable image per channel, in the order of the config.

    Raises:
        InputError: the number is wrong, or an image is missing, damaged, empty, or of no known format.
        MissingPluginError: innereye-imaging is not installed.
    """
    try:
        from innereye_imaging.formats import format_for, read_image, suffix_of
        from innereye_imaging.study import check_number_of_images
    except ImportError as error:
        raise MissingPluginError(
            f"images cannot be checked before they are sent ({error}): pip install innereye-imaging"
        ) from error
    check_number_of_images(len(images), config)
    formats = providers.image_formats()
    study = []
    for path in images:
        grid = read_image(path, formats).grid
        image_format = format_for(path, formats)
        suffix = "" if image_format is None else suffix_of(path, image_format)
        study.append(StudyImage(path, suffix.lower(), grid))
    return tuple(study)


def make_snapshot(model: LoadedModel, study: Sequence[StudyImage], folder: Path, progress: Progress) -> Snapshot:
    """Fill an empty folder with what the manifest of the package lists, and with the images.

    Raises:
        IntegrityError: a file of the package is missing or changed.
        StorageError: the disk is full or not writable.
    """
    kind = model.package.manifest.kind
    with storage_errors(str(folder)):
        (folder / kind).mkdir()
        (folder / _IMAGES).mkdir()
    copy_package(model.package, folder / kind, progress)
    names = []
    for number, (image, channel) in enumerate(zip(study, model.files.config.image_channels, strict=True)):
        names.append(f"{_IMAGES}/{number}_{_plain(channel)}{image.suffix}")
        with storage_errors(str(folder)):
            _copy_without_name(image.path, folder / names[-1])
    # A node that is taken away in the middle of a job is replaced by one that may find what the first has written.
    command = (f"{kind}/{_ENTRY_SCRIPT}", *names, "--output", RESULT, "--overwrite")
    size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Snapshot(folder, command, size_bytes)


def _plain(channel: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", channel).strip("_") or "channel"


def _copy_without_name(source: Path, target: Path) -> None:
    """Copy an image; gzip is packed anew, because its header may hold the name that the file once had."""
    if not target.name.endswith(".gz"):
        shutil.copyfile(source, target)
        return
    with (
        gzip.open(source) as reading,
        target.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=raw, mtime=0) as writing,
    ):
        shutil.copyfileobj(reading, writing, _CHUNK_BYTES)
