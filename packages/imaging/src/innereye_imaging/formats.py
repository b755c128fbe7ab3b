"""How an image file finds its format, and what every image must be, whatever its format.

Files store axes as x, y, z; arrays here are (z, y, x).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from innereye_core.errors import InputError
from innereye_core.model import Check
from innereye_imaging.geometry import Image, check_affine

if TYPE_CHECKING:
    from innereye_core.contract.providers import ImageData, ImageFormat

_REAL_NUMBERS = "biuf"
"""Kinds of numpy types that are one real number: bool, integers, floats."""


def format_for(path: Path, formats: Sequence[ImageFormat]) -> ImageFormat | None:
    """The format with the longest file name ending that ``path`` has, in upper or lower case; None: there is none."""
    fitting = [(len(suffix), known) for known in formats if (suffix := suffix_of(path, known))]
    return max(fitting, key=lambda candidate: candidate[0])[1] if fitting else None


def suffix_of(path: Path, image_format: ImageFormat) -> str:
    """The ending of ``path``, as it is written there, by which it belongs to a format; empty: it does not."""
    name = path.name
    lengths = [len(suffix) for suffix in image_format.suffixes if name.lower().endswith(suffix)]
    return name[-max(lengths) :] if lengths else ""


def known_suffixes(formats: Sequence[ImageFormat]) -> str:
    """Every file name ending that can be used, for messages."""
    return ", ".join(suffix for known in formats for suffix in known.suffixes) or "none"


def read_image(path: Path, formats: Sequence[ImageFormat]) -> Image:
    """Read a 3-D image with the format that its name ends in, and check its geometry.

    Raises:
        InputError: the file is missing, truncated, of no known format, not a 3-D image of one number per voxel, or
            its affine is not usable (see :func:`innereye_imaging.geometry.check_affine`).
    """
    try:
        found = path.is_file()
    except OSError as error:  # a folder that may not be looked into
        raise InputError(f"Image file {path} cannot be read: {error.strerror}; give an image file") from error
    if not found:
        raise InputError(
            f"Image file {path} {'is a folder' if path.is_dir() else 'does not exist'}; give an image file"
        )
    image_format = format_for(path, formats)
    if image_format is None:
        raise InputError(f"{path}: no installed image format has this ending; known are {known_suffixes(formats)}")
    image = as_image(image_format.read(path))
    if image.voxels.ndim != 3 or image.voxels.size == 0:
        shape_xyz = image.voxels.shape[::-1]
        raise InputError(f"{path}: has the shape {shape_xyz} (x, y, z); a 3-D image is needed")
    if image.voxels.dtype.kind not in _REAL_NUMBERS:
        raise InputError(f"{path}: has voxels of type {image.voxels.dtype}; one real number per voxel is needed")
    check_affine(image.affine, str(path))
    return image


def as_image(data: ImageData) -> Image:
    """What a format has read or is to write, as this package's own type."""
    if isinstance(data, Image):
        return data
    return Image(np.asarray(data.voxels), np.asarray(data.affine, np.float64))


def without_single_time_point(shape_xyz: Sequence[int], path: Path) -> tuple[int, int, int]:
    """The sizes along x, y, z of a file whose further axes all have length 1.

    Raises:
        InputError: the file has fewer than three axes, or several images along a further one.
    """
    if len(shape_xyz) < 3:
        raise InputError(f"{path}: is {len(shape_xyz)}-D with shape {tuple(shape_xyz)}; a 3-D image is needed")
    if any(size != 1 for size in shape_xyz[3:]):
        raise InputError(f"{path}: is {len(shape_xyz)}-D with shape {tuple(shape_xyz)}; extract one 3-D image first")
    x, y, z = shape_xyz[:3]
    return x, y, z


def dimension_remarks(shape_xyz: Sequence[int]) -> tuple[Check, ...]:
    """What is to be said about a file with further axes of length 1, which were dropped; nothing about a 3-D file."""
    if len(shape_xyz) == 3:
        return ()
    shape = " × ".join(map(str, shape_xyz))
    return (Check("dimensions", "repaired", f"{len(shape_xyz)}-D ({shape}) with one image, read as 3-D"),)


def unreadable(path: Path, format_name: str, error: BaseException) -> InputError:
    """The error for a file that a library fails on, with the last line of the library's own message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    return InputError(f"{path}: cannot be read as {format_name}; it is damaged or of another kind ({reason})")
