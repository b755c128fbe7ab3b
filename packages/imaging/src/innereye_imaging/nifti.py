"""The NIfTI file format: headers and files through nibabel, with every contradiction in a header refused."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from innereye_core.errors import InputError, UsageError
from innereye_core.model import Check, SizeZYX
from innereye_imaging.formats import as_image, dimension_remarks, unreadable, without_single_time_point
from innereye_imaging.geometry import Grid, Image, Voxels, axis_codes, check_affine

if TYPE_CHECKING:
    from innereye_core.contract.providers import ImageData

_GZIP_LEVEL = 1
"""What nibabel uses: label maps compress well at any level, and posteriors are large."""

_START_OF_NIFTI2 = 540
"""The header's size, which a NIfTI-2 file starts with, in either byte order."""

_KNOWN_PLACE, _UNKNOWN_PLACE = 1, 0
"""Values of sform_code and qform_code."""

_FORM_CODES = range(6)
"""Every value of sform_code and qform_code that NIfTI knows."""

_MILLIMETRES, _NO_UNIT = 2, 0
"""Values of the first three bits of xyzt_units; 1 is metres, 3 micrometres."""

_LARGEST_SPACING_DIFFERENCE = 0.01
"""Relative difference of pixdim and sform that rounding may have made, but no registration."""

_BYTES_AT_ONCE = 1 << 22


class Nifti:
    """NIfTI-1 and NIfTI-2 in one file, also gzipped: any byte order, scaling applied, sform before qform."""

    name = "nifti"
    suffixes = (".nii.gz", ".nii")

    def read(self, path: Path) -> Image:
        """Read an image; values stay as stored where the file has no scaling.

        A scl_slope of 0 or NaN is no scaling. Where both sform and qform are given, the sform is used; a remark says
        so if they place voxels differently.

        Raises:
            InputError: the file is missing, truncated, longer than its header says, corrupt (gzip's checksum is
                compared), no NIfTI, not 3-D (a fourth axis of length 1 is accepted), not in millimetres, without a
                voxel size, or holds colours or complex numbers; or sform, qform and pixdim contradict each other in
                where the axes point to or in the voxel size.
        """
        from nibabel.spatialimages import HeaderDataError
        from nibabel.wrapstruct import WrapStructError

        library_errors = (HeaderDataError, WrapStructError, OSError, EOFError, ValueError, MemoryError, zlib.error)
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
    header = _read_header(stream)
    shape_xyz = tuple(int(size) for size in header["dim"][1 : header["dim"][0] + 1])
    x, y, z = without_single_time_point(shape_xyz, path)
    if min(x, y, z) < 1:
        raise ValueError(f"its sizes are {shape_xyz}")
    affine, known, remarks = _place(header, (z, y, x), path)
    voxels = _read_voxels(stream, header, x * y * z, path).reshape((z, y, x))
    return Image(voxels, affine, known, (*dimension_remarks(shape_xyz), *remarks))


def _read_header(stream: Any) -> Any:
    """The header as it is stored: the library's own checks would replace what they do not like.

    Raises:
        ValueError: it is no header of a NIfTI file with the voxels in the same file.
    """
    from nibabel import nifti1, nifti2

    library: Any = nifti1.Nifti1Header
    start = stream.read(4)
    if _START_OF_NIFTI2 in (int.from_bytes(start, "little"), int.from_bytes(start, "big")):
        library = nifti2.Nifti2Header
    header = library(start + stream.read(library.template_dtype.itemsize - len(start)), check=False)
    magic = library.single_magic
    if header["magic"].item()[: len(magic)] != magic:
        raise ValueError(f"its magic is {header['magic'].item()!r}, not {magic!r}")
    if not 1 <= header["dim"][0] <= 7:
        raise ValueError(f"it has {header['dim'][0]} dimensions")
    if not header["vox_offset"] >= library.single_vox_offset:
        raise ValueError(f"its voxels begin at byte {header['vox_offset']}, inside of its header")
    return header


def _read_voxels(stream: Any, header: Any, count: int, path: Path) -> Voxels:
    """All voxels in their order in the file, scaled. Memory is used as they come in, not as the header claims them.

    Raises:
        InputError: they are no real numbers.
        ValueError: there are fewer or more of them than ``count``.
    """
    from nibabel import volumeutils

    library: Any = volumeutils
    dtype = _voxel_type(header, path)
    voxels = np.empty(count, dtype)
    stream.seek(header.get_data_offset())
    content = voxels.view(np.uint8).data
    position = 0
    while position < len(content):
        read = stream.readinto(content[position : position + _BYTES_AT_ONCE])
        if not read:
            raise ValueError(f"it has {position} of {len(content)} bytes of voxels")
        position += read
    # gzip compares its checksum only when the end of the file is reached.
    if stream.read(1):
        raise ValueError(f"it goes on after the {len(content)} bytes of voxels that its header announces")
    native = voxels.astype(dtype.newbyteorder("="), copy=False)
    slope, intercept = header.get_slope_inter()
    scaled: Voxels = native if slope is None else library.apply_read_scaling(native, slope, intercept)
    return scaled


def _voxel_type(header: Any, path: Path) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except KeyError:
        dtype = np.dtype("V")
    if dtype.kind not in "iuf":
        kind = header.get_value_label("datatype")
        raise InputError(f"{path}: holds {kind} voxels; one real number per voxel is needed")
    return dtype


def _place(header: Any, size_zyx: SizeZYX, path: Path) -> tuple[NDArray[np.float64], bool, tuple[Check, ...]]:
    """The affine, whether the file gives it (or a convention does), and what is to be said about it.

    Raises:
        InputError: the unit is not mm, a voxel size is missing, or sform, qform and pixdim contradict each other.
    """
    unit = int(header["xyzt_units"]) & 7
    if unit not in (_NO_UNIT, _MILLIMETRES):
        name = {1: "metres", 3: "micrometres"}.get(unit, f"an unknown unit (code {unit})")
        raise InputError(f"{path}: states its geometry in {name}; write it in mm")
    spacing_xyz_mm = header["pixdim"][1:4].astype(np.float64)
    if not (np.isfinite(spacing_xyz_mm).all() and (spacing_xyz_mm > 0).all()):
        raise InputError(f"{path}: its pixdim says voxels of {_text(spacing_xyz_mm)} mm; write the true voxel size")
    forms = {}
    header["pixdim"][0] = header["pixdim"][0] or 1  # qfac: NIfTI says that 0 means 1
    for name, read in (("sform", header.get_sform), ("qform", header.get_qform)):
        code = int(header[f"{name}_code"])
        if code not in _FORM_CODES:
            raise InputError(f"{path}: its {name}_code is {code}, which NIfTI does not know; repair the header")
        if code:
            forms[name] = np.asarray(read(), np.float64)
            check_affine(forms[name], f"{path} ({name})")
    if not forms:
        return np.asarray(header.get_base_affine(), np.float64), False, ()
    grids = {name: Grid(size_zyx, form) for name, form in forms.items()}
    used = next(iter(grids.values()))
    difference = np.abs(np.asarray(used.spacing_xyz_mm) / spacing_xyz_mm - 1).max()
    if difference > _LARGEST_SPACING_DIFFERENCE:
        raise InputError(
            f"{path}: its sform says voxels of {_text(used.spacing_xyz_mm)} mm, its pixdim {_text(spacing_xyz_mm)} mm; "
            "find out which is true, repair it"
        )
    if len(grids) == 1 or used.matches(grids["qform"]):
        return used.affine, True, ()
    codes = [axis_codes(form) for form in forms.values()]
    if codes[0] != codes[1]:
        raise InputError(f"{path}: its sform says {codes[0]}, its qform {codes[1]}; find out which is true, repair it")
    distance = used.largest_distance_mm(grids["qform"])
    detail = f"sform and qform place voxels up to {distance:.3g} mm apart; the sform is used"
    return used.affine, True, (Check("header", "warning", detail),)


def _text(spacing_xyz_mm: Any) -> str:
    return " × ".join(f"{float(value):.5g}" for value in spacing_xyz_mm)
