"""Write result files whole or not at all: into a hidden sibling first, then by rename."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from innereye_core.errors import InputError, UsageError
from innereye_core.publishing import storage_errors
from innereye_imaging.formats import format_for, known_suffixes, suffix_of
from innereye_imaging.geometry import Image

if TYPE_CHECKING:
    from innereye_core.contract.providers import ImageFormat


@dataclass(frozen=True)
class OutputFile:
    """A file that is going to be written."""

    path: Path
    format: ImageFormat
    overwrite: bool

    def temporary_sibling(self) -> Path:
        """A new name in the same folder, with the same ending, that a listing does not show."""
        return self.path.with_name(f".innereye-{secrets.token_hex(6)}{suffix_of(self.path, self.format)}")

    def refuse_to_replace(self) -> None:
        """Raise InputError if the file is there and may not be overwritten."""
        if self.path.exists() and not self.overwrite:
            raise InputError(f"{self.path} exists already; choose another output, or overwrite it with --overwrite")


def open_output(path: Path, formats: Sequence[ImageFormat], overwrite: bool, dimensions: int = 3) -> OutputFile:
    """Make sure, before any long work, that an image can be written to ``path``: a tiny one is written and removed.

    Args:
        path: the file.
        formats: the installed image formats.
        overwrite: whether an existing file may be replaced.
        dimensions: 3 for labels, 4 for posteriors.

    Raises:
        InputError: the file exists and may not be overwritten, or its folder does not exist.
        UsageError: no format has this file name ending, or the format cannot hold such an image.
        StorageError: the folder is not writable or the disk is full.
    """
    image_format = format_for(path, formats)
    if image_format is None:
        raise UsageError(f"{path}: no installed image format has this ending; known are {known_suffixes(formats)}")
    output = OutputFile(path, image_format, overwrite)
    sample = Image(np.zeros((1,) * dimensions, np.uint8 if dimensions == 3 else np.float32), np.eye(4))
    trial = output.temporary_sibling()
    with storage_errors(str(path)):
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a file in it")
        if not path.parent.is_dir():
            raise InputError(f"Folder {path.parent} does not exist; make it first, or choose another output")
        output.refuse_to_replace()
        try:
            image_format.write(trial, sample)
        finally:
            trial.unlink(missing_ok=True)
    return output


def write_images(images: Sequence[tuple[OutputFile, Image]]) -> None:
    """Write all images, and let them appear only when every one is complete; an interruption leaves the old state.

    Raises:
        InputError: a file has appeared meanwhile that may not be overwritten.
        StorageError: the disk is full or not writable.
    """
    written: list[tuple[Path, OutputFile]] = []
    try:
        for output, image in images:
            temporary = output.temporary_sibling()
            written.append((temporary, output))
            with storage_errors(str(output.path)):
                output.format.write(temporary, image)
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
        for _, output in written:
            output.refuse_to_replace()
        for temporary, output in written:
            with storage_errors(str(output.path)):
                temporary.replace(output.path)
    finally:
        for temporary, _ in written:
            temporary.unlink(missing_ok=True)
