"""Images that strangers send: told apart by their first bytes, refused where they are too large, written to files."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from innereye_core.errors import InputError, MissingPluginError
from innereye_core.publishing import storage_errors

MAX_UPLOAD_BYTES = 1 << 30
"""Largest request."""
MAX_VOXELS = 1 << 29
"""Largest image: 512 × 512 × 2048 voxels. A few bytes of gzip can announce any number."""

_GZIP = b"\x1f\x8b"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")

_NIFTI_HEADERS = {348: (40, "8h"), 540: (16, "8q")}
"""Size of the header, which is its first number, for NIfTI-1 and NIfTI-2: where the sizes are, and of what type."""


class TooLargeError(InputError):
    """A request or image is larger than an endpoint takes (exit code 3)."""


class DicomUploadError(MissingPluginError):
    """DICOM was sent to a model that cannot read it (exit code 6)."""


def refuse_dicom(start: bytes) -> None:
    """Refuse what starts like a zip archive, which is how a DICOM series is sent.

    Raises:
        DicomUploadError: it does.
    """
    if start.startswith(_ZIP):
        raise DicomUploadError("DICOM input needs a plugin: pip install innereye-dicom")


def write_uploads(contents: Sequence[bytes], folder: Path) -> list[Path]:
    """Write NIfTI images, gzipped or not, under names of our own. Whether they are images is for their reader to say.

    Raises:
        DicomUploadError: one is a zip archive.
        TooLargeError: one announces more than ``MAX_VOXELS``.
        StorageError: the disk is full or not writable.
    """
    paths = []
    for number, content in enumerate(contents, start=1):
        refuse_dicom(content[:4])
        name = "image" if len(contents) == 1 else f"image_{number}"
        path = folder / (f"{name}.nii.gz" if content.startswith(_GZIP) else f"{name}.nii")
        voxels = _announced_voxels(content)
        if voxels > MAX_VOXELS:
            raise TooLargeError(f"{path.name}: announces {voxels} voxels; an endpoint takes at most {MAX_VOXELS}")
        with storage_errors(path.name):
            path.write_bytes(content)
        paths.append(path)
    return paths


def _announced_voxels(content: bytes) -> int:
    """The number of voxels that the header of a NIfTI file states; 0 where it has no such header."""
    start = content[:540]
    if content.startswith(_GZIP):
        try:
            start = gzip.GzipFile(fileobj=io.BytesIO(content)).read(540)
        except (OSError, EOFError, zlib.error):
            return 0
    for order in "<>":
        (size,) = struct.unpack(f"{order}i", start[:4].ljust(4, b"\0"))
        place, form = _NIFTI_HEADERS.get(size, (0, ""))
        if form and len(start) >= size:
            dimensions, *sizes = struct.unpack_from(f"{order}{form}", start, place)
            return math.prod(max(extent, 0) for extent in sizes[: max(dimensions, 0)])
    return 0
