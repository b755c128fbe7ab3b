"""What the text headers of NRRD and MetaImage say, and whether the file holds the voxels that they announce.

The library reads over much of this: a damaged compressed MetaImage becomes noise, a missing voxel size 1 mm, and units
and intensity scalings are ignored.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from innereye_core.errors import InputError

_LONGEST_LINE = 4096

_BYTES_AT_ONCE = 1 << 22

_COMPRESSED_BYTES_AT_ONCE = 1 << 16
"""zlib makes at most a thousand times as much of them."""

_ZLIB_OR_GZIP = 47
"""What zlib calls wbits, for streams of either kind, as the library accepts them."""

_IN_MILLIMETRES_OR_UNSAID = {"mm", "millimeter", "millimetre", "?", ""}


@dataclass(frozen=True)
class ItkHeader:
    """What is needed of either header."""

    orientation_known: bool
    """Whether the file says how its axes lie in the patient."""
    voxel_file: Path
    offset: int
    """Where the voxels begin in it, in bytes."""
    compression: Literal["zlib", "gzip"] | None


def read_metaimage_header(path: Path) -> ItkHeader:
    """Read the ``key = value`` lines of a MetaImage, up to ElementDataFile, which is the last.

    Raises:
        InputError: the header is damaged, states no voxel size, or states what the library would ignore.
    """
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for line in _lines(file):
            key, separator, value = line.partition("=")
            if not separator:
                break
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                break
        offset = file.tell()
    complete = {"ObjectType", "NDims", "DimSize", "ElementType", "ElementDataFile"} <= fields.keys()
    if not complete or not re.fullmatch(r"\d+(\s+\d+)*", fields["DimSize"]):
        raise InputError(f"{path}: cannot be read as metaimage; its header is damaged or of another kind")
    _check_unit(path, fields.get("DistanceUnits", ""))
    spacing = fields.get("ElementSpacing", fields.get("ElementSize", "")).split()
    _check_spacing(path, spacing, len(fields["DimSize"].split()))
    for key, neutral in (("ElementToIntensityFunctionSlope", 1), ("ElementToIntensityFunctionOffset", 0)):
        if key in fields and _number(fields[key]) != neutral:
            raise InputError(f"{path}: {key} is {fields[key]}; store the values scaled, and leave it out")
    for key, usual in (("HeaderSize", "0"), ("BinaryData", "true")):
        if fields.get(key, usual).lower() != usual:
            raise InputError(f"{path}: {key} is {fields[key]}; convert it to an .mha file without this")
    local = fields["ElementDataFile"].upper() == "LOCAL"
    voxel_file = path if local else _sibling(path, fields["ElementDataFile"])
    compressed = fields.get("CompressedData", "False").lower() == "true"
    if compressed:
        stated, found = fields.get("CompressedDataSize", "nothing"), voxel_file.stat().st_size - local * offset
        if stated != str(found):
            raise InputError(
                f"{path}: its CompressedDataSize says {stated}, but there are {found} bytes; it is damaged, copy it "
                "again"
            )
    return ItkHeader(
        orientation_known=not fields.keys().isdisjoint(("TransformMatrix", "Rotation", "Orientation")),
        voxel_file=voxel_file,
        offset=offset if local else 0,
        compression="zlib" if compressed else None,
    )


def read_nrrd_header(path: Path) -> ItkHeader:
    """Read the ``field: value`` lines of an NRRD file, up to the empty line that ends them.

    Raises:
        InputError: the header is damaged, states no voxel size, or states what the library would ignore.
    """
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        if not file.readline(_LONGEST_LINE).startswith(b"NRRD"):
            raise InputError(f"{path}: cannot be read as nrrd; it is damaged or of another kind")
        for line in _lines(file):
            if not line:
                break
            field, separator, value = line.partition(": ")
            if separator and not line.startswith("#"):
                fields[field.lower().replace(" ", "")] = value.strip()
        offset = file.tell()
    for field in ("spaceunits", "units"):  # a fourth unit is that of time
        for unit in re.findall(r'"([^"]*)"', fields.get(field, ""))[:3]:
            _check_unit(path, unit)
    if "spacedirections" not in fields:
        # NaN marks an axis that is none of space.
        spacings = [value for value in fields.get("spacings", "").split() if value.lower() != "nan"]
        _check_spacing(path, spacings, _number(fields.get("dimension", "3")))
    for field in ("lineskip", "byteskip"):
        if fields.get(field, "0") != "0":
            raise InputError(f"{path}: skips parts of a file; convert it to an .nrrd file with its own voxels")
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise InputError(f"{path}: its encoding is {encoding!r}; write it as raw or gzip")
    voxel_file = fields.get("datafile", "")
    return ItkHeader(
        # Other spaces, such as "scanner-xyz", name no direction in the patient.
        orientation_known="spacedirections" in fields
        and re.match(r"(left|right)-|[LR][AP][SI]", fields.get("space", "")) is not None,
        voxel_file=_sibling(path, voxel_file) if voxel_file else path,
        offset=0 if voxel_file else offset,
        compression=None if encoding == "raw" else "gzip",
    )


def check_voxels(path: Path, header: ItkHeader, expected: int) -> None:
    """Make sure that a file holds exactly the ``expected`` bytes of voxels, undamaged where it is compressed.

    Raises:
        InputError: there are fewer or more.
        OSError, EOFError, ValueError, zlib.error: the file cannot be read or decompressed; a checksum is wrong.
    """
    with header.voxel_file.open("rb") as file:
        file.seek(header.offset)
        found = 0
        for length in _lengths(file, header.compression):
            found += length
            if found > expected:
                break
    if found < expected:
        raise InputError(f"{path}: is truncated, it has {found} of {expected} bytes of voxels; copy it again")
    if found > expected:
        raise InputError(
            f"{path}: goes on after the {expected} bytes of voxels that its header announces; it is damaged, "
            "copy it again"
        )


def _lengths(file: BinaryIO, compression: Literal["zlib", "gzip"] | None) -> Iterator[int]:
    """The lengths of successive parts of the voxels, from where the file is."""
    if compression is None:
        start = file.tell()
        yield file.seek(0, io.SEEK_END) - start
    elif compression == "gzip":
        with gzip.GzipFile(fileobj=file) as stream:
            while part := stream.read(_BYTES_AT_ONCE):
                yield len(part)
    else:
        decompressor = zlib.decompressobj(_ZLIB_OR_GZIP)
        while not decompressor.eof:
            stored = file.read(_COMPRESSED_BYTES_AT_ONCE)
            if not stored:
                raise EOFError("its compressed voxels end too early")
            yield len(decompressor.decompress(stored))
        if decompressor.unused_data or file.read(1):
            raise ValueError("it goes on after its compressed voxels")


def _lines(file: BinaryIO) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE):
        yield line.decode("latin-1").rstrip("\r\n")


def _sibling(path: Path, name: str) -> Path:
    """The file that a detached header names; it must lie beside the header, and be one only."""
    if Path(name).name != name or "%" in name or name.split()[0].upper() == "LIST":
        raise InputError(f"{path}: its voxels are in {name!r}; convert it to one file with header and voxels")
    return path.with_name(name)


def _check_unit(path: Path, unit: str) -> None:
    if unit.lower() not in _IN_MILLIMETRES_OR_UNSAID:
        raise InputError(f"{path}: states its geometry in {unit}; write it in mm")


def _check_spacing(path: Path, values: Sequence[str], dimensions: float) -> None:
    numbers = [_number(value) for value in values]
    if len(numbers) < min(3, dimensions) or not all(0 < number < math.inf for number in numbers):
        found = " ".join(values) or "nothing"
        raise InputError(f"{path}: its header says {found} about the size of its voxels; write the true voxel size")


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan
