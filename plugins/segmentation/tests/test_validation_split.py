"""dataset.csv says which images and masks the validation split has; every fault is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from innereye_core.errors import InputError
from innereye_segmentation.dataset import ValidationSubject, read_validation_split

HEADER = "subject,filePath,channel,split\n"


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    for name in ("a.nii.gz", "a_organ.nii.gz", "b.nii.gz", "b_organ.nii.gz"):
        (folder / name).touch()
    (folder / "dataset.csv").write_text(text, encoding=encoding)
    return folder / "dataset.csv"


def read(path: Path) -> tuple[ValidationSubject, ...]:
    return read_validation_split(path, ["ct"], ["organ"])


def test_images_and_masks_of_the_validation_split_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        HEADER + "2,b_organ.nii.gz,organ,val\n2,b.nii.gz,ct,val\n3,missing.nii.gz,ct,train\n"
        "1,a.nii.gz,ct,val\n1,a_organ.nii.gz,organ,val\n1,missing.nii.gz,other,val\n",
    )
    assert read(path) == (
        ValidationSubject("2", (tmp_path / "b.nii.gz",), {"organ": tmp_path / "b_organ.nii.gz"}),
        ValidationSubject("1", (tmp_path / "a.nii.gz",), {"organ": tmp_path / "a_organ.nii.gz"}),
    )


def test_image_channels_come_in_the_order_of_the_config(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "1,a.nii.gz,ct,val\n1,b.nii.gz,pet,val\n1,a_organ.nii.gz,organ,val\n")
    (subject,) = read_validation_split(path, ["pet", "ct"], ["organ"])
    assert subject.images == (tmp_path / "b.nii.gz", tmp_path / "a.nii.gz")


def test_byte_order_mark_blank_lines_quotes_and_more_columns_are_accepted(tmp_path: Path) -> None:
    text = 'institutionId,subject, filePath,channel,split\n"x, y",1,a.nii.gz,ct, val\n\nz,1,a_organ.nii.gz,organ,val\n'
    assert read(write(tmp_path, text, encoding="utf-8-sig"))[0].subject == "1"


def test_unused_channels_may_repeat(tmp_path: Path) -> None:
    text = HEADER + "1,a.nii.gz,ct,val\n1,a_organ.nii.gz,organ,val\n1,x,note,val\n1,x,note,val\n"
    assert len(read(write(tmp_path, text))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: has no column 'subject', 'filePath', 'channel'"),
        ("subject,filePath,split\n", ":1: has no column 'channel'"),
        ("subject,filePath,channel,split,split\n", ":1: column 'split' is there twice"),
        (
            "subject,filePath,channel\n1,a.nii.gz,ct\n",
            ":1: empty validation split, there is no column 'split'; mark the rows",
        ),
        (HEADER, "csv: empty validation split; mark the rows of at least one subject with 'val'"),
        (HEADER + "1,a.nii.gz,ct,train\n", "csv: empty validation split"),
        (HEADER + "1,a.nii.gz,ct,Val\n", ":2: split 'Val'; it must be train, val or test"),
        (HEADER + "1,a.nii.gz,ct,\n", ":2: split ''; it must be"),
        (HEADER + "1,a.nii.gz,ct\n", ":2: has 3 cells for 4 columns"),
        (HEADER + "\n1,,ct,val\n", ":3: filePath is empty"),
        (HEADER + '1,"a.nii.gz,ct,val\n', "is no CSV file in UTF-8"),
        (HEADER + "1,a.nii.gz,ct,val\n1,b.nii.gz,ct,val\n", ":3: subject '1' has channel 'ct' already in line 2"),
        (
            HEADER + "1,a.nii.gz,ct,val\n1,a_organ.nii.gz,organ,train\n",
            ":3: subject '1' is in split 'train' here and in 'val' in line 2",
        ),
        (HEADER + "1,a.nii.gz,ct,val\n", "subject '1' is in the validation split, but has no row for channel 'organ'"),
        (HEADER + "1,a_organ.nii.gz,organ,val\n", "has no row for channel 'ct'; add it"),
        (
            HEADER + "1,c.nii.gz,ct,val\n1,a_organ.nii.gz,organ,val\n",
            ":2: .*c.nii.gz does not exist; filePath is relative to dataset.csv",
        ),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no CSV file in UTF-8: .*; save it as one"):
        read(write(tmp_path, HEADER + "Jürgen,a.nii.gz,ct,val\n", encoding="latin-1"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset.csv: cannot be read: No such file"):
        read(tmp_path / "dataset.csv")
