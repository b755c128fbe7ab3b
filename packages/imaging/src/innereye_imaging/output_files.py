"""Write result files whole or not at all: into hidden files first, then by rename."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from innereye_core.errors import InputError, UsageError
from innereye_core.publishing import storage_errors
from innereye_imaging.formats import format_for, known_suffixes, suffix_of
from innereye_imaging.geometry import Image

if TYPE_CHECKING:
    from innereye_core.contract.providers import ImageFormat

Writer: TypeAlias = Callable[[Path], object]
"""Writes the whole content of a file to a path that it is given."""


@dataclass(frozen=True)
class OutputFile:
    """A file that is going to be written."""

    path: Path
    suffix: str
    """Its ending, as it is written in ``path``."""
    overwrite: bool
    makes_folder: bool = False
    """Whether its folder is not there yet, and is made when the file appears."""

    def temporary(self) -> Path:
        """A new name on the same file system, with the same ending, that a listing does not show."""
        folder = self.path.parent.parent if self.makes_folder else self.path.parent
        return folder / f".innereye-{secrets.token_hex(6)}{self.suffix}"

    def refuse_to_replace(self) -> None:
        """Raise InputError if the file is there and may not be overwritten."""
        if self.path.exists() and not self.overwrite:
            raise InputError(f"{self.path} exists already; choose another output, or overwrite it with --overwrite")

    def publish(self, temporary: Path) -> None:
        """Give a complete file its name."""
        if self.makes_folder:
            self.path.parent.mkdir(exist_ok=True)
        temporary.replace(self.path)


@dataclass(frozen=True, kw_only=True)
class OutputImage(OutputFile):
    """An image file that is going to be written."""

    format: ImageFormat

    def holding(self, image: Image) -> tuple[OutputFile, Writer]:
        """This file and what writes it, for :func:`write_files`."""
        return self, lambda path: self.format.write(path, image)


def open_output(
    path: Path,
    formats: Sequence[ImageFormat],
    overwrite: bool,
    dimensions: int = 3,
    dtype: type[np.generic] = np.uint8,
    *,
    makes_folder: bool = False,
) -> OutputImage:
    """Make sure, before any long work, that an image can be written to ``path``: a tiny one is written and removed.

    Args:
        path: the file.
        formats: the installed image formats.
        overwrite: whether an existing file may be replaced.
        dimensions: 3, or 4 for the posteriors of all classes.
        dtype: what the image is made of.
        makes_folder: whether the folder of the file is still to be made, in one that exists.

    Raises:
        InputError: the file exists and may not be overwritten, or its folder does not exist.
        UsageError: no format has this file name ending, or the format cannot hold such an image.
        StorageError: the folder is not writable or the disk is full.
    """
    image_format = format_for(path, formats)
    if image_format is None:
        raise UsageError(f"{path}: no installed image format has this ending; known are {known_suffixes(formats)}")
    output = OutputImage(path, suffix_of(path, image_format), overwrite, makes_folder, format=image_format)
    sample = Image(np.zeros((1,) * dimensions, dtype), np.eye(4))
    _try(output, lambda trial: image_format.write(trial, sample))
    return output


def open_output_file(path: Path, suffixes: Sequence[str], overwrite: bool) -> OutputFile:
    """Make sure, before any long work, that a file other than an image can be written to ``path``.

    Args:
        path: the file.
        suffixes: the endings that it may have, in lower case.
        overwrite: whether an existing file may be replaced.

    Raises:
        InputError: the file exists and may not be overwritten, or its folder does not exist.
        UsageError: it has another ending.
        StorageError: the folder is not writable.
    """
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{path}: must end in {' or '.join(suffixes)}, which says what is written; rename it")
    output = OutputFile(path, path.suffix, overwrite)
    _try(output, lambda trial: trial.write_bytes(b""))
    return output


def _try(output: OutputFile, write: Writer) -> None:
    trial = output.temporary()
    with storage_errors(str(output.path)):
        if output.path.is_dir():
            raise InputError(f"{output.path} is a folder; name a file in it")
        if not trial.parent.is_dir():
            raise InputError(f"Folder {trial.parent} does not exist; make it first, or choose another output")
        output.refuse_to_replace()
        try:
            write(trial)
        finally:
            trial.unlink(missing_ok=True)


def write_images(images: Sequence[tuple[OutputImage, Image]]) -> None:
    """Write images as :func:`write_files` does."""
    write_files([output.holding(image) for output, image in images])


def write_files(files: Sequence[tuple[OutputFile, Writer]]) -> None:
    """Write all files, and let them appear only when every one is complete; an interruption leaves the old state.

    Args:
        files: each with what writes it.

    Raises:
        InputError: a file has appeared meanwhile that may not be overwritten.
        StorageError: the disk is full or not writable.
    """
    written: list[tuple[Path, OutputFile]] = []
    try:
        for output, write in files:
            temporary = output.temporary()
            written.append((temporary, output))
            with storage_errors(str(output.path)):
                write(temporary)
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
        for _, output in written:
            output.refuse_to_replace()
        for temporary, output in written:
            with storage_errors(str(output.path)):
                output.publish(temporary)
    finally:
        for temporary, _ in written:
            temporary.unlink(missing_ok=True)
