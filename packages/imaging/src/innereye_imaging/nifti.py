"""The NIfTI file format, through nibabel."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from innereye_core.errors import InputError, UsageError
from innereye_imaging.formats import as_image, unreadable, without_single_time_point
from innereye_imaging.geometry import Image, axis_codes

if TYPE_CHECKING:
    from innereye_core.contract.providers import ImageData

_GZIP_LEVEL = 1
"""What nibabel uses: label maps compress well at any level, and posteriors are large."""

_START_OF_NIFTI2 = 540
"""The header's size, which a NIfTI-2 file starts with, in either byte order."""

_KNOWN_PLACE, _UNKNOWN_PLACE = 1, 0
"""Values of sform_code and qform_code."""


class Nifti:
    """NIfTI-1 and NIfTI-2 in one file, also gzipped: any byte order, scaling applied, sform before qform."""

    name = "nifti"
    suffixes = (".nii.gz", ".nii")

    def read(self, path: Path) -> Image:
        """Read an image; values stay as stored where the file has no scaling.

        Raises:
            InputError: the file is missing, truncated, corrupt (gzip's checksum is compared), no NIfTI, not 3-D (a
                fourth axis of length 1 is accepted), not in millimetres, holds colours or complex numbers, or its
                sform and qform contradict each other in where the axes point to.
        """
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError
        from nibabel.wrapstruct import WrapStructError

        library_errors = (
            ImageFileError,
            HeaderDataError,
            WrapStructError,
            OSError,
            EOFError,
            ValueError,
            MemoryError,
            zlib.error,
        )
        try:
            with path.open("rb") as file:
                if not _is_gzip(path):
                    return _read(file, path)
                with gzip.GzipFile(fileobj=file) as stream:
                    return _read(stream, path)
        except library_errors as error:
            raise unreadable(path, "NIfTI", error) from error

    def write(self, path: Path, image: ImageData) -> None:
        """Write a 3-D image, or 4-D posteriors with the file axes x, y, z, class; gzip without name and time.

        Raises:
            UsageError: NIfTI has no such voxel type.
            OSError: the disk is full or not writable.
        """
        from nibabel import nifti1
        from nibabel.spatialimages import HeaderDataError

        library: Any = nifti1
        own = as_image(image)
        try:
            nifti = library.Nifti1Image(own.voxels.T, own.affine, dtype=own.voxels.dtype)
        except HeaderDataError as error:
            raise UsageError(f"{path}: NIfTI cannot hold voxels of type {own.voxels.dtype}") from error
        code = _KNOWN_PLACE if own.orientation_known else _UNKNOWN_PLACE
        nifti.set_sform(own.affine, code)
        nifti.set_qform(own.affine, code)
        nifti.header.set_xyzt_units("mm")
        with path.open("wb") as file:
            if not _is_gzip(path):
                nifti.to_stream(file)
                return
            with gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0) as stream:
                nifti.to_stream(stream)


def _is_gzip(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _read(stream: Any, path: Path) -> Image:
    from nibabel import nifti1, nifti2

    library: Any = nifti1.Nifti1Image
    start = stream.read(4)
    stream.seek(0)
    if _START_OF_NIFTI2 in (int.from_bytes(start, "little"), int.from_bytes(start, "big")):
        library = nifti2.Nifti2Image
    image = library.from_file_map(library.make_file_map({"image": stream}), mmap=False)
    size_xyz = without_single_time_point(image.shape, path)
    if image.get_data_dtype().kind not in "iuf":
        kind = image.header.get_value_label("datatype")
        raise InputError(f"{path}: holds {kind} voxels; one real number per voxel is needed")
    unit = image.header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        raise InputError(f"{path}: states its geometry in {unit}s; write it in mm")
    voxels = np.asanyarray(image.dataobj).reshape(size_xyz, order="F").T
    while stream.read(1 << 20):
        pass  # gzip compares its checksum only when the end of the file is reached
    forms = [form for form, code in (image.get_sform(coded=True), image.get_qform(coded=True)) if code]
    codes = [axis_codes(form) for form in forms]
    if len(set(codes)) > 1:
        raise InputError(f"{path}: its sform says {codes[0]}, its qform {codes[1]}; find out which is true, repair it")
    native = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    return Image(native, np.asarray(image.affine, np.float64), orientation_known=bool(forms))
