"""The NRRD and MetaImage file formats, through SimpleITK, which works in LPS coordinates."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from innereye_core.errors import InputError, StorageError, UsageError
from innereye_imaging.formats import as_image, unreadable, without_single_time_point
from innereye_imaging.geometry import Image

if TYPE_CHECKING:
    from innereye_core.contract.providers import ImageData

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_METAIMAGE_BYTES_PER_VALUE = {
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_FLOAT"), 4),
    **dict.fromkeys(("MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"), 8),
}

_LONGEST_HEADER_LINE = 4096


class _ItkFormat(ABC):
    """What both formats have in common."""

    name: str
    suffixes: tuple[str, ...]
    _detached_header: str
    """The ending of a file that is a header only, with the voxels in another file."""
    _itk_reader: str

    @abstractmethod
    def _orientation_known(self, path: Path, metadata: dict[str, str]) -> bool:
        """Whether the file says how its axes lie in the patient."""

    def read(self, path: Path) -> Image:
        """Read an image; values stay as stored.

        Raises:
            InputError: the file is missing, truncated, corrupt, of another format, not 3-D (a fourth axis of length
                1 is accepted), or holds several values per voxel.
        """
        library = _simple_itk()
        reader = library.ImageFileReader()
        reader.SetImageIO(self._itk_reader)
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
            size_xyz = without_single_time_point(reader.GetSize(), path)
            if reader.GetNumberOfComponents() != 1:
                raise InputError(f"{path}: has {reader.GetNumberOfComponents()} values per voxel; one is needed")
            metadata = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
            reader.SetExtractSize([*size_xyz, *[0] * (reader.GetDimension() - 3)])
            image = reader.Execute()
        except RuntimeError as error:
            raise unreadable(path, self.name, error) from error
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        affine[:3, 3] = image.GetOrigin()
        known = self._orientation_known(path, metadata)
        return Image(library.GetArrayFromImage(image), _LPS_TO_RAS @ affine, known)

    def write(self, path: Path, image: ImageData) -> None:
        """Write a 3-D image, compressed, and read it back: SimpleITK does not notice every full disk.

        Raises:
            UsageError: the image is not 3-D or of an unknown type, or the file name asks for two files.
            OSError: the folder is not writable.
            StorageError: what is on disk afterwards is not the image.
        """
        own = as_image(image)
        if path.name.lower().endswith(self._detached_header):
            raise UsageError(f"{path}: header and voxels would be two files; name it *{self.suffixes[0]}")
        if own.voxels.ndim != 3:
            raise UsageError(f"{path}: posteriors of several classes need NIfTI; name the file *.nii.gz")
        library = _simple_itk()
        affine = _LPS_TO_RAS @ own.affine
        spacing = own.grid.spacing_xyz_mm
        try:
            written = library.GetImageFromArray(np.ascontiguousarray(own.voxels), isVector=False)
        except TypeError as error:
            raise UsageError(f"{path}: {self.name} cannot hold voxels of type {own.voxels.dtype}") from error
        written.SetSpacing(spacing)
        written.SetOrigin(affine[:3, 3].tolist())
        written.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
        path.touch()  # an OSError says more than what SimpleITK makes of it
        try:
            library.WriteImage(written, str(path), useCompression=True, imageIO=self._itk_reader)
            found = self.read(path)
        except (RuntimeError, InputError) as error:
            raise StorageError(f"{path}: could not be written; the disk may be full, free space") from error
        if not (np.array_equal(found.voxels, own.voxels) and found.grid.matches(own.grid)):
            raise StorageError(f"{path}: what was written is not what is on disk; the disk may be full, free space")


class Nrrd(_ItkFormat):
    """NRRD with header and voxels in one file; detached headers can be read."""

    name = "nrrd"
    suffixes = (".nrrd", ".nhdr")
    _detached_header = ".nhdr"
    _itk_reader = "NrrdImageIO"

    def _orientation_known(self, path: Path, metadata: dict[str, str]) -> bool:
        # Other spaces, such as "scanner-xyz", name no direction in the patient.
        return metadata.get("NRRD_space", "").startswith(("left-", "right-"))


class MetaImage(_ItkFormat):
    """MetaImage with header and voxels in one file (.mha); detached headers (.mhd) can be read."""

    name = "metaimage"
    suffixes = (".mha", ".mhd")
    _detached_header = ".mhd"
    _itk_reader = "MetaImageIO"

    def read(self, path: Path) -> Image:
        """Read an image; values stay as stored.

        Raises:
            InputError: as for NRRD; a damaged header and missing voxels are found here, before the library writes
                about them to the process's stderr.
        """
        header, header_size = _metaimage_header(path)
        if header["ElementDataFile"] == "LOCAL":
            expected, found = _metaimage_data_size(header), path.stat().st_size - header_size
            if found < expected:
                raise InputError(f"{path}: is truncated, it has {found} of {expected} bytes of voxels; copy it again")
        return super().read(path)

    def _orientation_known(self, path: Path, metadata: dict[str, str]) -> bool:
        header, _ = _metaimage_header(path)
        return not header.keys().isdisjoint(("TransformMatrix", "Rotation", "Orientation"))


def _metaimage_header(path: Path) -> tuple[dict[str, str], int]:
    """The ``key = value`` lines up to ElementDataFile, which is the last, and their length in bytes."""
    header: dict[str, str] = {}
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_HEADER_LINE):
            key, separator, value = line.decode("latin-1").partition("=")
            if not separator:
                break
            header[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile" and re.fullmatch(r"\d+(\s+\d+)*", header.get("DimSize", "")):
                return header, file.tell()
    raise InputError(f"{path}: cannot be read as metaimage; its header is damaged or of another kind")


def _metaimage_data_size(header: dict[str, str]) -> int:
    """How many bytes of voxels the header announces; 0 where it does not say."""
    if header.get("CompressedData", "False").lower() == "true":
        return int(header.get("CompressedDataSize", "0"))
    values = math.prod(map(int, header["DimSize"].split())) * int(header.get("ElementNumberOfChannels", "1"))
    return values * _METAIMAGE_BYTES_PER_VALUE.get(header.get("ElementType", ""), 0)


def _simple_itk() -> Any:
    """The library, imported when it is needed; it has no type information."""
    import SimpleITK

    return SimpleITK
