"""The NRRD and MetaImage file formats, through SimpleITK, which works in LPS coordinates."""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from innereye_core.errors import InputError, StorageError, UsageError
from innereye_imaging.formats import as_image, dimension_remarks, unreadable, without_single_time_point
from innereye_imaging.geometry import Image
from innereye_imaging.itk_headers import ItkHeader, check_voxels, read_metaimage_header, read_nrrd_header

if TYPE_CHECKING:
    from innereye_core.contract.providers import ImageData

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class _ItkFormat(ABC):
    """What both formats have in common."""

    name: str
    suffixes: tuple[str, ...]
    _detached_header: str
    """The ending of a file that is a header only, with the voxels in another file."""
    _itk_reader: str

    @abstractmethod
    def _read_header(self, path: Path) -> ItkHeader:
        """What the library does not say about the file."""

    def read(self, path: Path) -> Image:
        """Read an image; values stay as stored.

        Raises:
            InputError: the file is missing, truncated, longer than its header says, corrupt, of another format, not
                3-D (a fourth axis of length 1 is accepted), not in millimetres, without a voxel size, or holds several
                values per voxel.
        """
        library = _simple_itk()
        reader = library.ImageFileReader()
        reader.SetImageIO(self._itk_reader)
        reader.SetFileName(str(path))
        try:
            header = self._read_header(path)
            reader.ReadImageInformation()
            shape_xyz = reader.GetSize()
            size_xyz = without_single_time_point(shape_xyz, path)
            if reader.GetNumberOfComponents() != 1:
                raise InputError(f"{path}: has {reader.GetNumberOfComponents()} values per voxel; one is needed")
            bytes_per_voxel = library.Image([1, 1, 1], reader.GetPixelID()).GetSizeOfPixelComponent()
            check_voxels(path, header, math.prod(size_xyz) * bytes_per_voxel)
            reader.SetExtractSize([*size_xyz, *[0] * (reader.GetDimension() - 3)])
            image = reader.Execute()
        except (RuntimeError, OSError, EOFError, ValueError, zlib.error) as error:
            raise unreadable(path, self.name, error) from error
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        affine[:3, 3] = image.GetOrigin()
        voxels = library.GetArrayFromImage(image)
        return Image(voxels, _LPS_TO_RAS @ affine, header.orientation_known, dimension_remarks(shape_xyz))

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

    def _read_header(self, path: Path) -> ItkHeader:
        return read_nrrd_header(path)


class MetaImage(_ItkFormat):
    """MetaImage with header and voxels in one file (.mha); detached headers (.mhd) can be read."""

    name = "metaimage"
    suffixes = (".mha", ".mhd")
    _detached_header = ".mhd"
    _itk_reader = "MetaImageIO"

    def _read_header(self, path: Path) -> ItkHeader:
        return read_metaimage_header(path)


def _simple_itk() -> Any:
    """The library, imported when it is needed; it has no type information."""
    import SimpleITK

    return SimpleITK
