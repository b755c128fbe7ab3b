"""dataset.csv says which images and masks the subjects of a split have; every fault is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from innereye_core.errors import InputError
from innereye_imaging.dataset import DatasetSplit, Subject, read_split

HEADER = "subject,filePath,channel,split\n"


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    for name in ("a.nii.gz", "a_organ.nii.gz", "b.nii.gz", "b_organ.nii.gz"):
        (folder / name).touch()
    (folder / "dataset.csv").write_text(text, encoding=encoding)
    return folder / "dataset.csv"


def read(path: Path) -> DatasetSplit:
    return read_split(path, "val", ["ct"], ["organ"])


def test_images_and_masks_of_the_split_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        HEADER + "2,b_organ.nii.gz,organ,val\n2,b.nii.gz,ct,val\n3,missing.nii.gz,ct,train\n"
        "1,a.nii.gz,ct,val\n1,a_organ.nii.gz,organ,val\n1,missing.nii.gz,other,val\n",
    )
    assert read(path).complete() == (
        Subject("2", (tmp_path / "b.nii.gz",), {"organ": tmp_path / "b_organ.nii.gz"}),
        Subject("1", (tmp_path / "a.nii.gz",), {"organ": tmp_path / "a_organ.nii.gz"}),
    )


@pytest.mark.parametrize(("split", "subject"), [("train", "1"), ("val", "2"), ("test", "3")])
def test_only_the_split_that_is_asked_for_is_given(tmp_path: Path, split: str, subject: str) -> None:
    rows = [
        f"{name},a.nii.gz,ct,{other}\n{name},a_organ.nii.gz,organ,{other}\n"
        for name, other in (("1", "train"), ("2", "val"), ("3", "test"))
    ]
    found = read_split(write(tmp_path, HEADER + "".join(rows)), split, ["ct"], ["organ"])
    assert [one.name for one in found.complete()] == [subject]


def test_image_channels_come_in_the_order_of_the_config(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "1,a.nii.gz,ct,val\n1,b.nii.gz,pet,val\n1,a_organ.nii.gz,organ,val\n")
    (subject,) = read_split(path, "val", ["pet", "ct"], ["organ"]).complete()
    assert subject.images == (tmp_path / "b.nii.gz", tmp_path / "a.nii.gz")


def test_a_mask_row_is_the_region_outside_of_which_everything_is_background(tmp_path: Path) -> None:
    rows = "1,a.nii.gz,ct,val\n1,a_organ.nii.gz,organ,val\n1,b_organ.nii.gz,mask,val\n"
    (subject,) = read(write(tmp_path, HEADER + rows)).complete()
    assert subject.mask == tmp_path / "b_organ.nii.gz"


def test_a_structure_that_is_called_mask_is_a_structure(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "1,a.nii.gz,ct,val\n1,a_organ.nii.gz,mask,val\n")
    (subject,) = read_split(path, "val", ["ct"], ["mask"]).complete()
    assert subject.references == {"mask": tmp_path / "a_organ.nii.gz"}
    assert subject.mask is None


def test_byte_order_mark_blank_lines_quotes_and_more_columns_are_accepted(tmp_path: Path) -> None:
    text = 'institutionId,subject, filePath,channel,split\n"x, y",1,a.nii.gz,ct, val\n\nz,1,a_organ.nii.gz,organ,val\n'
    assert read(write(tmp_path, text, encoding="utf-8-sig")).subjects[0].name == "1"


def test_unused_channels_may_repeat(tmp_path: Path) -> None:
    text = HEADER + "1,a.nii.gz,ct,val\n1,a_organ.nii.gz,organ,val\n1,x,note,val\n1,x,note,val\n"
    assert len(read(write(tmp_path, text)).complete()) == 1


def test_a_subject_that_lacks_something_does_not_hide_the_others(tmp_path: Path) -> None:
    rows = "1,a.nii.gz,ct,val\n2,b.nii.gz,ct,val\n2,b_organ.nii.gz,organ,val\n"
    split = read(write(tmp_path, HEADER + rows))
    assert [subject.name for subject in split.subjects] == ["2"]
    assert list(split.unusable) == ["1"]


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
        (HEADER + "1,a.nii.gz,mask,val\n1,b.nii.gz,mask,val\n", ":3: subject '1' has channel 'mask' already in line 2"),
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
        (
            HEADER + "1,a.nii.gz,ct,val\n1,a_organ.nii.gz,organ,val\n1,c.nii.gz,mask,val\n",
            ":4: .*c.nii.gz does not exist",
        ),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(write(tmp_path, text)).complete()
    assert "\n" not in str(error.value)


def test_an_empty_split_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "1,a.nii.gz,ct,val\n")
    with pytest.raises(InputError, match=r"empty test split; mark the rows of at least one subject with 'test'"):
        read_split(path, "test", ["ct"], ["organ"])


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no CSV file in UTF-8: .*; save it as one"):
        read(write(tmp_path, HEADER + "Jürgen,a.nii.gz,ct,val\n", encoding="latin-1"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset.csv: cannot be read: No such file"):
        read(tmp_path / "dataset.csv")
