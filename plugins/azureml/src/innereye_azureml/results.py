"""Gives a downloaded segmentation its place: only a whole one that fits the images, and never over another file."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core.errors import InputError, IntegrityError, StorageError
from innereye_core.publishing import make_folder, storage_errors

if TYPE_CHECKING:
    from innereye_core.contract.providers import Providers
    from innereye_imaging.geometry import Grid

_NAME, _SUFFIX = "segmentation", ".nii.gz"

_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""How file systems say that they have none."""


def prepare_folder(folder: Path) -> None:
    """Make a folder where it is missing, and be sure that files can be written into it, before any long work.

    Raises:
        StorageError: it cannot be made, or not be written into.
    """
    with storage_errors(str(folder)):
        make_folder(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write into {folder}; choose a folder that you may write into with --download")


def check_segmentation(file: Path, grid: Grid, providers: Providers) -> None:
    """Refuse a segmentation that is damaged, or that does not lie on the grid of the images.

    Raises:
        IntegrityError: it is, or does not.
    """
    from innereye_imaging.formats import read_image

    try:
        arrived = read_image(file, providers.image_formats()).grid
    except InputError as error:
        raise IntegrityError(f"what the job wrote is no segmentation: {error}") from None
    if not grid.matches(arrived):
        raise IntegrityError(f"what the job wrote has {arrived}, but the image has {grid}; it is not used")


def keep(file: Path, folder: Path) -> Path:
    """Give a complete file on the same file system a new name in ``folder``, and tell which.

    It is segmentation.nii.gz, or the first of segmentation_001.nii.gz, segmentation_002.nii.gz, … that is free.

    Raises:
        StorageError: the disk failed.
    """
    with storage_errors(str(folder)):
        with file.open("rb") as content:
            os.fsync(content.fileno())
        target, number = folder / f"{_NAME}{_SUFFIX}", 0
        while True:
            try:
                _name_anew(file, target)
                return target
            except FileExistsError:
                number += 1
                target = folder / f"{_NAME}_{number:03}{_SUFFIX}"


def _name_anew(file: Path, target: Path) -> None:
    """Give a file one more name, unless something has it.

    Raises:
        FileExistsError: something has it.
    """
    try:
        os.link(file, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        target.open("xb").close()  # the name is ours from here on
        file.replace(target)
