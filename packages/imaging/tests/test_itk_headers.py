"""What NRRD and MetaImage headers may say, and what is refused that the library would read over."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest

from innereye_core.errors import InputError
from innereye_core.model import Check
from innereye_imaging.itk_formats import MetaImage, Nrrd

VOXELS = np.arange(4 * 5 * 6, dtype="<i2").reshape(4, 5, 6)
RAW = VOXELS.tobytes()
GZIP = gzip.compress(RAW)
ZLIB = zlib.compress(RAW)

PLACE = "space: left-posterior-superior\nspace directions: (1,0,0) (0,2,0) (0,0,3)\n"


def nrrd(
    voxels: bytes = RAW, *, sizes: str = "6 5 4", place: str = PLACE, encoding: str = "raw", endian: str = "little",
    more: str = "",
) -> bytes:  # fmt: skip
    lines = f"NRRD0004\ntype: int16\ndimension: {len(sizes.split())}\nsizes: {sizes}\n{place}encoding: {encoding}\n"
    return f"{lines}endian: {endian}\n{more}\n".encode() + voxels


MATRIX = "TransformMatrix = 1 0 0 0 1 0 0 0 1\n"


def mha(
    voxels: bytes = RAW, *, sizes: str = "6 5 4", place: str = f"{MATRIX}ElementSpacing = 1 2 3\n", more: str = "",
    element: str = "MET_SHORT", file: str = "LOCAL",
) -> bytes:  # fmt: skip
    lines = f"ObjectType = Image\nNDims = {len(sizes.split())}\n{place}DimSize = {sizes}\nElementType = {element}\n"
    return f"{lines}{more}ElementDataFile = {file}\n".encode() + voxels


def compressed(size: int) -> str:
    return f"CompressedData = True\nCompressedDataSize = {size}\n"


READ = {
    "nrrd, raw": (Nrrd(), nrrd()),
    "nrrd, big endian": (Nrrd(), nrrd(VOXELS.astype(">i2").tobytes(), endian="big")),
    "nrrd, gzip": (Nrrd(), nrrd(GZIP, encoding="gzip")),
    "nrrd, several gzip members": (Nrrd(), nrrd(gzip.compress(RAW[:99]) + gzip.compress(RAW[99:]), encoding="gzip")),
    "nrrd, millimetres": (Nrrd(), nrrd(more='space units: "mm" "mm" "mm"\n# a comment\nkey:=value\n')),
    "nrrd, space by its short name": (Nrrd(), nrrd(place=PLACE.replace("left-posterior-superior", "LPS"))),
    "mha, raw": (MetaImage(), mha()),
    "mha, big endian": (MetaImage(), mha(VOXELS.astype(">i2").tobytes(), more="BinaryDataByteOrderMSB = True\n")),
    "mha, compressed": (MetaImage(), mha(ZLIB, more=compressed(len(ZLIB)))),
    "mha, millimetres": (MetaImage(), mha(more="DistanceUnits = mm\nElementToIntensityFunctionSlope = 1.0\n")),
    "mha, size of elements": (MetaImage(), mha(place=f"{MATRIX}ElementSize = 1 2 3\n")),
}


@pytest.mark.parametrize("what", READ)
def test_read(tmp_path: Path, what: str) -> None:
    known, content = READ[what]
    path = tmp_path / f"a{known.suffixes[0]}"
    path.write_bytes(content)
    image = known.read(path)
    np.testing.assert_array_equal(image.voxels, VOXELS)
    assert image.voxels.dtype.isnative
    np.testing.assert_array_equal(image.affine, np.diag([-1, -2, 3, 1]))
    assert image.orientation_known
    assert image.remarks == ()


REFUSED = {
    "nrrd, metres": (Nrrd(), nrrd(more='space units: "m" "m" "m"\n'), "states its geometry in m; write it in mm"),
    "nrrd, no voxel size": (Nrrd(), nrrd(place=""), "header says nothing about the size of its voxels"),
    "nrrd, unknown voxel size": (Nrrd(), nrrd(place="spacings: 1 2 nan\n"), "says 1 2 about the size of its voxels"),
    "nrrd, voxel size of 0": (Nrrd(), nrrd(place="spacings: 1 2 0\n"), "says 1 2 0 about the size of its voxels"),
    "nrrd, too short": (Nrrd(), nrrd(RAW[:-1]), "is truncated, it has 239 of 240 bytes of voxels"),
    "nrrd, too long": (Nrrd(), nrrd(RAW + b"\0"), "goes on after the 240 bytes of voxels that its header announces"),
    "nrrd, gzip too short": (Nrrd(), nrrd(gzip.compress(RAW[:-1]), encoding="gzip"), "it has 239 of 240 bytes"),
    "nrrd, gzip too long": (Nrrd(), nrrd(gzip.compress(RAW + b"\0"), encoding="gz"), "goes on after the 240 bytes"),
    "nrrd, gzip cut": (Nrrd(), nrrd(GZIP[:-9], encoding="gzip"), "cannot be read as nrrd; it is damaged"),
    "nrrd, gzip checksum": (
        Nrrd(), nrrd(GZIP[:-8] + bytes([GZIP[-8] ^ 1]) + GZIP[-7:], encoding="gzip"), "CRC check failed",
    ),
    "nrrd, gzip garbage": (Nrrd(), nrrd(GZIP + b"garbage", encoding="gzip"), "cannot be read as nrrd; it is damaged"),
    "nrrd, gigabytes": (Nrrd(), nrrd(sizes="4000 4000 2000"), "it has 240 of 64000000000 bytes of voxels"),
    "nrrd, text": (Nrrd(), nrrd(encoding="ascii"), "its encoding is 'ascii'; write it as raw or gzip"),
    "nrrd, skipped lines": (Nrrd(), nrrd(more="byte skip: 2\n"), "skips parts of a file"),
    "nrrd, many files": (Nrrd(), nrrd(more="data file: slice%03d.raw 1 4 1\n"), "its voxels are in 'slice%03d.raw"),
    "nrrd, file elsewhere": (Nrrd(), nrrd(more="data file: ../a.raw\n"), "its voxels are in '../a.raw'"),
    "nrrd, missing file": (Nrrd(), nrrd(more="data file: no.raw\n"), "cannot be read as nrrd"),
    "mha, micrometres": (MetaImage(), mha(more="DistanceUnits = um\n"), "states its geometry in um; write it in mm"),
    "mha, no voxel size": (MetaImage(), mha(place=MATRIX), "header says nothing about the size of its voxels"),
    "mha, voxel size of 0": (MetaImage(), mha(place="ElementSpacing = 1 0 3\n"), "says 1 0 3 about the size of its"),
    "mha, voxel size in words": (MetaImage(), mha(place="ElementSpacing = a b c\n"), "says a b c about the size of"),
    "mha, negative size": (MetaImage(), mha(place="ElementSpacing = 1 -2 3\n"), "says 1 -2 3 about the size of its"),
    "mha, voxel size of NaN": (MetaImage(), mha(place="ElementSpacing = 1 nan 3\n"), "says 1 nan 3 about the size"),
    "mha, scaled values": (
        MetaImage(), mha(more="ElementToIntensityFunctionSlope = 2\n"), "ElementToIntensityFunctionSlope is 2; store",
    ),
    "mha, shifted values": (
        MetaImage(), mha(more="ElementToIntensityFunctionOffset = -1024\n"), "FunctionOffset is -1024; store",
    ),
    "mha, too short": (MetaImage(), mha(RAW[:-1]), "is truncated, it has 239 of 240 bytes of voxels"),
    "mha, too long": (MetaImage(), mha(RAW + b"\0"), "goes on after the 240 bytes of voxels"),
    "mha, fewer compressed voxels": (
        MetaImage(), mha(ZLIB, sizes="6 5 5", more=compressed(len(ZLIB))), "it has 240 of 300 bytes of voxels",
    ),
    "mha, more compressed voxels": (
        MetaImage(), mha(ZLIB, sizes="6 5 3", more=compressed(len(ZLIB))), "goes on after the 180 bytes of voxels",
    ),
    "mha, compressed and cut": (MetaImage(), mha(ZLIB[:-9], more=compressed(len(ZLIB))), "it is damaged, copy it"),
    "mha, compressed too short": (MetaImage(), mha(ZLIB[:-9], more=compressed(len(ZLIB) - 9)), "voxels end too early"),
    "mha, compressed and damaged": (
        MetaImage(), mha(ZLIB[:20] + bytes([ZLIB[20] ^ 1]) + ZLIB[21:], more=compressed(len(ZLIB))), "cannot be read",
    ),
    "mha, compressed garbage": (
        MetaImage(), mha(ZLIB + b"more", more=compressed(len(ZLIB) + 4)), "it goes on after its compressed voxels",
    ),
    "mha, compressed, no size": (MetaImage(), mha(ZLIB, more="CompressedData = True\n"), "DataSize says nothing, but"),
    "mha, compressed, wrong size": (MetaImage(), mha(ZLIB, more=compressed(9)), "CompressedDataSize says 9, but"),
    "mha, no element type": (MetaImage(), mha().replace(b"ElementType", b"Elephant"), "its header is damaged"),
    "mha, gigabytes": (MetaImage(), mha(sizes="4000 4000 2000"), "it has 240 of 64000000000 bytes of voxels"),
    "mha, text": (MetaImage(), mha(more="BinaryData = False\n"), "BinaryData is False; convert it"),
    "mha, header elsewhere": (MetaImage(), mha(more="HeaderSize = -1\n"), "HeaderSize is -1; convert it"),
    "mha, list of files": (MetaImage(), mha(file="LIST"), "its voxels are in 'LIST'"),
    "mha, file elsewhere": (MetaImage(), mha(file="/dev/zero"), "its voxels are in '/dev/zero'"),
    "mha, missing file": (MetaImage(), mha(file="no.raw"), "cannot be read as metaimage"),
    "mha, negative sizes": (MetaImage(), mha(sizes="-6 5 4"), "its header is damaged or of another kind"),
    "mha, unknown element": (MetaImage(), mha(element="MET_FOO"), "cannot be read as metaimage"),
    "mha, two values per voxel": (MetaImage(), mha(RAW * 2, more="ElementNumberOfChannels = 2\n"), "has 2 values per"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused(tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    known, content, problem = REFUSED[what]
    path = tmp_path / f"a{known.suffixes[0]}"
    path.write_bytes(content)
    with pytest.raises(InputError) as refusal:
        known.read(path)
    message = str(refusal.value)
    assert message.startswith(str(path))
    assert problem in message
    assert "\n" not in message
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("known", "header", "data"),
    [
        (Nrrd(), "a.nhdr", nrrd(b"", more="data file: voxels.raw\n")),
        (MetaImage(), "a.mhd", mha(b"", file="voxels.raw")),
    ],
    ids=["nhdr", "mhd"],
)
@pytest.mark.parametrize(("voxels", "problem"), [(RAW, None), (RAW[1:], "is truncated"), (RAW + b"x", "goes on after")])
def test_voxels_beside_the_header(
    tmp_path: Path, known: Nrrd | MetaImage, header: str, data: bytes, voxels: bytes, problem: str | None
) -> None:
    (tmp_path / header).write_bytes(data)
    (tmp_path / "voxels.raw").write_bytes(voxels)
    if problem is None:
        np.testing.assert_array_equal(known.read(tmp_path / header).voxels, VOXELS)
    else:
        with pytest.raises(InputError, match=problem):
            known.read(tmp_path / header)


def test_directions_without_a_space_name_no_direction_in_the_patient(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    path.write_bytes(nrrd(place=PLACE.replace("left-posterior-superior", "scanner-xyz")))
    assert not Nrrd().read(path).orientation_known


@pytest.mark.parametrize(
    ("known", "content"),
    [
        (Nrrd(), nrrd(sizes="6 5 4 1", place='spacings: 1 2 3 nan\nunits: "mm" "mm" "mm" "s"\n')),
        (MetaImage(), mha(sizes="6 5 4 1", place="ElementSpacing = 1 2 3 1\n")),
    ],
    ids=["nrrd", "mha"],
)
def test_a_single_time_point_is_remarked(tmp_path: Path, known: Nrrd | MetaImage, content: bytes) -> None:
    path = tmp_path / f"a{known.suffixes[0]}"
    path.write_bytes(content)
    image = known.read(path)
    np.testing.assert_array_equal(image.voxels, VOXELS)
    assert image.grid.spacing_xyz_mm == (1, 2, 3)
    assert image.remarks == (Check("dimensions", "repaired", "4-D (6 × 5 × 4 × 1) with one image, read as 3-D"),)
