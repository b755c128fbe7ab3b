"""Image file formats: NIfTI through nibabel, NRRD and MetaImage through SimpleITK, and how a file finds its format.

Files store axes as x, y, z; arrays here are (z, y, x). The libraries are imported when a file is read or written.
"""

from __future__ import annotations

import gzip
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from innereye_core.errors import InputError, StorageError, UsageError
from innereye_imaging.geometry import Grid, Image, Voxels, check_affine

if TYPE_CHECKING:
    from innereye_core.contract.providers import ImageData, ImageFormat

_GZIP_LEVEL = 1
"""What nibabel uses: label maps compress well at any level, and posteriors are large."""

_METAIMAGE_ITEMSIZE = {
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_FLOAT"), 4),
    **dict.fromkeys(("MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"), 8),
}
_LONGEST_HEADER_LINE = 4096

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def format_for(path: Path, formats: Sequence[ImageFormat]) -> ImageFormat | None:
    """The format with the longest file name ending that ``path`` has, in upper or lower case; None: there is none."""
    name = path.name.lower()
    fitting = [(len(suffix), image_format) for image_format in formats for suffix in image_format.suffixes if name.endswith(suffix)]
    return max(fitting, key=lambda candidate: candidate[0])[1] if fitting else None


def suffix_of(path: Path, image_format: ImageFormat) -> str:
    """The ending by which ``path`` was recognised, as the file has it."""
    length = max(len(suffix) for suffix in image_format.suffixes if path.name.lower().endswith(suffix))
    return path.name[-length:]


def known_suffixes(formats: Sequence[ImageFormat]) -> str:
    """Every file name ending that can be used, for messages."""
    return ", ".join(suffix for image_format in formats for suffix in image_format.suffixes) or "none"


def read_image(path: Path, formats: Sequence[ImageFormat]) -> Image:
    """Read a 3-D image with the format that its name ends in, and check its geometry.

    Raises:
        InputError: the file is missing, truncated, of no known format, not a 3-D image of one number per voxel, or
            its affine is not usable (see :func:`innereye_imaging.geometry.check_affine`).
    """
    if not path.is_file():
        problem = "is a folder, not an image file" if path.is_dir() else "does not exist"
        raise InputError(f"Image file {path} {problem}")
    image_format = format_for(path, formats)
    if image_format is None:
        raise InputError(f"{path}: no installed image format has this file name ending; use one of {known_suffixes(formats)}")
    image = _as_image(image_format.read(path))
    if image.voxels.ndim != 3 or 0 in image.voxels.shape:
        raise InputError(f"{path}: a 3-D image is needed, but this one has the shape {image.voxels.shape[::-1]} (x, y, z)")
    if image.voxels.dtype.kind not in "biuf":
        raise InputError(f"{path}: voxels are of type {image.voxels.dtype}; a single real number per voxel is needed")
    check_affine(image.affine, str(path))
    return image


def _as_image(data: ImageData) -> Image:
    if isinstance(data, Image):
        return data
    return Image(np.asarray(data.voxels), np.asarray(data.affine, np.float64))


def _without_single_time_point(shape_xyz: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    """The first three sizes of a shape whose further axes all have length 1."""
    if len(shape_xyz) < 3:
        raise InputError(f"{path}: is {len(shape_xyz)}-D with shape {shape_xyz}; a 3-D image is needed")
    if any(size != 1 for size in shape_xyz[3:]):
        raise InputError(f"{path}: is {len(shape_xyz)}-D with shape {shape_xyz}; extract one time point first")
    x, y, z = shape_xyz[:3]
    return x, y, z


def _one_line(error: BaseException) -> str:
    """The last line of a message: where the libraries put what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class Nifti:
    """NIfTI-1 and NIfTI-2 in one file, also gzipped: any byte order, scaling applied, sform before qform."""

    name = "nifti"
    suffixes: tuple[str, ...] = (".nii.gz", ".nii")

    def read(self, path: Path) -> Image:
        """Read an image; integers stay as stored where the file has no scaling.

        Raises:
            InputError: the file is missing, truncated, corrupt, no NIfTI, not 3-D (a fourth axis of length 1 is
                accepted), not in millimetres, holds colours or complex numbers, or its sform and qform contradict
                each other in where the axes point to.
        """
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError

        try:
            with path.open("rb") as file:
                if path.name.lower().endswith(".gz"):
                    with gzip.GzipFile(fileobj=file) as stream:
                        return self._read_stream(stream, path)
                return self._read_stream(file, path)
        except (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError) as error:
            raise InputError(f"{path}: cannot be read as NIfTI, it is damaged or of another kind ({_one_line(error)})") from error

    def _read_stream(self, stream: Any, path: Path) -> Image:
        from nibabel.nifti1 import Nifti1Image
        from nibabel.nifti2 import Nifti2Image

        header_size = stream.read(4)
        stream.seek(0)
        # A NIfTI-2 file starts with 540, in either byte order; anything else is NIfTI-1 or refused by its reader.
        is_second_version = 540 in (int.from_bytes(header_size, "little"), int.from_bytes(header_size, "big"))
        image = (Nifti2Image if is_second_version else Nifti1Image).from_stream(stream)
        header = image.header
        size_xyz = _without_single_time_point(image.shape, path)
        if header.get_data_dtype().kind not in "biuf":
            raise InputError(f"{path}: holds {header.get_value_label('datatype')} voxels; one real number per voxel is needed")
        unit = header.get_xyzt_units()[0]
        if unit not in ("mm", "unknown"):
            raise InputError(f"{path}: states its geometry in {unit}s; write it in mm")
        voxels = np.asanyarray(image.dataobj).reshape(size_xyz, order="F").T
        while stream.read(1 << 20):  # only at the end of the file gzip compares the checksum
            pass
        sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
        if sform is not None and qform is not None:
            from nibabel.orientations import aff2axcodes

            codes = ["".join(map(str, aff2axcodes(form))) for form in (sform, qform)]
            if codes[0] != codes[1]:
                raise InputError(f"{path}: its sform says {codes[0]}, its qform {codes[1]}; find out which is true and repair it")
        known = sform is not None or qform is not None
        return Image(_native(voxels), np.asarray(image.affine, np.float64), known)

    def write(self, path: Path, image: ImageData) -> None:
        """Write a 3-D image or 4-D posteriors (file axes x, y, z, class); gzip without name and time.

        Raises:
            UsageError: NIfTI has no such voxel type.
            OSError: the disk is full or not writable.
        """
        from nibabel.nifti1 import Nifti1Image
        from nibabel.spatialimages import HeaderDataError

        image = _as_image(image)
        code = 1 if image.orientation_known else 0
        try:
            nifti = Nifti1Image(image.voxels.T, image.affine, dtype=image.voxels.dtype)
        except HeaderDataError as error:
            raise UsageError(f"{path}: NIfTI cannot hold voxels of type {image.voxels.dtype}") from error
        nifti.header.set_xyzt_units("mm")
        nifti.set_sform(image.affine, code)
        nifti.set_qform(image.affine, code)
        with path.open("wb") as file:
            if path.name.lower().endswith(".gz"):
                with gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0) as stream:
                    nifti.to_stream(stream)
            else:
                nifti.to_stream(file)


def _native(voxels: Voxels) -> Voxels:
    """The same numbers in this machine's byte order, and in no more than double precision."""
    if voxels.dtype.kind == "f" and voxels.dtype.itemsize > 8:
        return voxels.astype(np.float64)
    return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)


class _SimpleItkFormat(ABC):
    """What NRRD and MetaImage have in common."""

    name: str
    suffixes: tuple[str, ...]
    _reader: str
    _detached_suffixes: tuple[str, ...]

    @abstractmethod
    def _orientation_known(self, path: Path, metadata: dict[str, str]) -> bool:
        """Whether the file says how its axes lie in the patient."""

    def read(self, path: Path) -> Image:
        """Read an image with its voxels as stored.

        Raises:
            InputError: the file is missing, truncated, corrupt, of another format, not 3-D (a fourth axis of length
                1 is accepted), or holds several values per voxel.
        """
        import SimpleITK

        try:
            reader = SimpleITK.ImageFileReader()
            reader.SetImageIO(self._reader)
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            size_xyz = _without_single_time_point(reader.GetSize(), path)
            if reader.GetNumberOfComponents() != 1:
                raise InputError(f"{path}: has {reader.GetNumberOfComponents()} values per voxel; one number is needed")
            known = self._orientation_known(path, {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()})
            if reader.GetDimension() > 3:
                reader.SetExtractSize([*size_xyz, *[0] * (reader.GetDimension() - 3)])
            image = reader.Execute()
        except RuntimeError as error:
            raise InputError(f"{path}: cannot be read as {self.name}, it is damaged or of another kind ({_one_line(error)})") from error
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        affine[:3, 3] = image.GetOrigin()
        return Image(SimpleITK.GetArrayFromImage(image), _LPS_TO_RAS @ affine, known)

    def write(self, path: Path, image: ImageData) -> None:
        """Write a 3-D image, compressed, and read it back: SimpleITK does not notice every full disk.

        Raises:
            UsageError: the image is not 3-D, or the file name asks for a header and voxels in two files.
            StorageError: what is on disk afterwards is not the image.
        """
        import SimpleITK

        image = _as_image(image)
        if path.name.lower().endswith(self._detached_suffixes):
            raise UsageError(f"{path}: would be two files; name it {path.with_suffix(self.suffixes[0]).name}")
        if image.voxels.ndim != 3:
            raise UsageError(f"{path}: only NIfTI can hold posteriors of several classes; name the file *.nii.gz")
        affine = _LPS_TO_RAS @ image.affine
        spacing = image.grid.spacing_xyz_mm
        written = SimpleITK.GetImageFromArray(np.ascontiguousarray(image.voxels), isVector=False)
        written.SetSpacing(spacing)
        written.SetOrigin(affine[:3, 3].tolist())
        written.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
        with path.open("wb"):
            pass  # gives the operating system's own error where the folder is not writable
        try:
            SimpleITK.WriteImage(written, str(path), useCompression=True, imageIO=self._reader)
            found = self.read(path)
        except (RuntimeError, InputError) as error:
            raise StorageError(f"{path}: could not be written, the disk may be full ({_one_line(error)})") from error
        if not (np.array_equal(found.voxels, image.voxels) and Grid(image.grid.size_zyx, image.affine).matches(found.grid)):
            raise StorageError(f"{path}: the written file differs from the image; check the disk")


class Nrrd(_SimpleItkFormat):
    """NRRD with header and voxels in one file; detached headers can be read."""

    name = "nrrd"
    suffixes = (".nrrd", ".nhdr")
    _reader = "NrrdImageIO"
    _detached_suffixes = (".nhdr",)

    def _orientation_known(self, path: Path, metadata: dict[str, str]) -> bool:
        # "scanner-xyz" and "3D-right-handed" name no direction in the patient.
        return metadata.get("NRRD_space", "").startswith(("left-", "right-"))


class MetaImage(_SimpleItkFormat):
    """MetaImage with header and voxels in one file (.mha); detached headers (.mhd) can be read."""

    name = "metaimage"
    suffixes = (".mha", ".mhd")
    _reader = "MetaImageIO"
    _detached_suffixes = (".mhd",)

    def read(self, path: Path) -> Image:
        """Read an image with its voxels as stored.

        Raises:
            InputError: as for NRRD; a truncated file is found here, before SimpleITK writes about it to stderr.
        """
        header, header_size = _metaimage_header(path)
        expected = _metaimage_data_size(header)
        found = path.stat().st_size - header_size
        if header["ElementDataFile"] == "LOCAL" and expected is not None and found < expected:
            raise InputError(f"{path}: is truncated, it has {found} of {expected} bytes of voxels; copy it again")
        return super().read(path)

    def _orientation_known(self, path: Path, metadata: dict[str, str]) -> bool:
        header, _ = _metaimage_header(path)
        return not header.keys().isdisjoint(("TransformMatrix", "Rotation", "Orientation"))


def _metaimage_header(path: Path) -> tuple[dict[str, str], int]:
    """The ``key = value`` lines up to ElementDataFile, which is always the last, and their length in bytes."""
    header: dict[str, str] = {}
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_HEADER_LINE):
            key, separator, value = line.decode("latin-1").partition("=")
            if not separator:
                break
            header[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile" and "DimSize" in header:
                return header, file.tell()
    raise InputError(f"{path}: cannot be read as metaimage, its header is damaged or of another kind")


def _metaimage_data_size(header: dict[str, str]) -> int | None:
    """How many bytes of voxels the header announces, where it says so."""
    if "CompressedDataSize" in header:
        return int(header["CompressedDataSize"])
    itemsize = _METAIMAGE_ITEMSIZE.get(header.get("ElementType", ""))
    if itemsize is None or header.get("CompressedData", "False") == "True":
        return None
    return itemsize * int(header.get("ElementNumberOfChannels", "1")) * math.prod(map(int, header["DimSize"].split()))
