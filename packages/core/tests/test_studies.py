"""Which studies a folder or CSV file holds, and which of them cannot be scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from innereye_core.errors import InputError
from innereye_core.studies import StudyFiles, find_studies

SUFFIXES = (".nii", ".nii.gz", ".nrrd")


def files(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image")
    return folder


def table(folder: Path, *rows: str, header: str = "subject,filePath,channel") -> Path:
    path = folder / "studies.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def found(source: Path, channels: Sequence[str] = ("ct",)) -> dict[str, StudyFiles]:
    return {study.name: study for study in find_studies(source, channels, SUFFIXES)}


# --- folders ----------------------------------------------------------------------------------------------------------


def test_each_sub_folder_is_a_study(tmp_path: Path) -> None:
    files(tmp_path, "b/ct.nii.gz", "a/ct.nrrd", "a/notes.txt")
    assert found(tmp_path) == {
        "a": StudyFiles("a", (tmp_path / "a" / "ct.nrrd",)),
        "b": StudyFiles("b", (tmp_path / "b" / "ct.nii.gz",)),
    }


def test_studies_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    files(tmp_path, "2/ct.nii", "1/ct.nii", "10/ct.nii")
    assert list(found(tmp_path)) == ["1", "10", "2"]


def test_channels_come_in_the_order_of_the_model(tmp_path: Path) -> None:
    files(tmp_path, "a/t1.nii.gz", "a/t2.nii.gz")
    assert [path.name for path in found(tmp_path, ("t2", "t1"))["a"].images] == ["t2.nii.gz", "t1.nii.gz"]


def test_each_file_is_a_study_of_a_model_with_one_channel(tmp_path: Path) -> None:
    files(tmp_path, "smith.nii.gz", "jones.nii", "list.csv", ".hidden.nii")
    assert list(found(tmp_path)) == ["jones", "smith"]


def test_file_of_a_model_with_several_channels_is_refused(tmp_path: Path) -> None:
    files(tmp_path, "smith.nii.gz")
    with pytest.raises(InputError, match=r"2 channels \(t1, t2\); make a folder per study"):
        found(tmp_path, ("t1", "t2"))


def test_mask_is_found_beside_the_channels(tmp_path: Path) -> None:
    files(tmp_path, "a/ct.nii.gz", "a/mask.nii.gz", "b/ct.nii.gz")
    studies = found(tmp_path)
    assert studies["a"].mask == tmp_path / "a" / "mask.nii.gz"
    assert studies["b"].mask is None


def test_mask_that_is_a_channel_is_an_image(tmp_path: Path) -> None:
    files(tmp_path, "a/ct.nii.gz", "a/mask.nii.gz")
    study = found(tmp_path, ("ct", "mask"))["a"]
    assert (len(study.images), study.mask) == (2, None)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["a/t1.nii.gz"], "has no channel 'ct'; the model takes ct"),
        (["a/ct.nii.gz", "a/ct.nrrd"], "has channel 'ct' twice: ct.nii.gz, ct.nrrd"),
    ],
)
def test_study_that_cannot_be_scored_is_found_with_its_problem(tmp_path: Path, names: list[str], problem: str) -> None:
    files(tmp_path, *names, "b/ct.nii")
    studies = found(tmp_path)
    assert studies["a"].problem == problem
    assert studies["b"].problem is None


def test_folder_and_file_of_one_name_are_refused(tmp_path: Path) -> None:
    files(tmp_path, "a/ct.nii.gz", "a.nii.gz")
    with pytest.raises(InputError, match="'a' is there twice"):
        found(tmp_path)


def test_names_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    files(tmp_path, "a/ct.nii.gz", "A/ct.nii.gz")
    with pytest.raises(InputError, match="differ in case only"):
        found(tmp_path)


@pytest.mark.parametrize("place", ["empty", "absent"])
def test_place_without_studies_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=place):
        found(tmp_path / place)


# --- CSV files --------------------------------------------------------------------------------------------------------


def test_rows_of_a_subject_are_a_study(tmp_path: Path) -> None:
    files(tmp_path, "x/1.nii.gz", "x/2.nii.gz", "x/m.nii.gz")
    source = table(tmp_path, "p1,x/1.nii.gz,ct,test", "p2,x/2.nii.gz,ct,", "p1,x/m.nii.gz,mask,", "p1,gone.nii,heart,")
    source.write_text(source.read_text().replace("channel\n", "channel,split\n", 1))
    assert found(source) == {
        "p1": StudyFiles("p1", (tmp_path / "x" / "1.nii.gz",), tmp_path / "x" / "m.nii.gz"),
        "p2": StudyFiles("p2", (tmp_path / "x" / "2.nii.gz",)),
    }


def test_file_that_is_missing_is_a_problem_of_its_study(tmp_path: Path) -> None:
    files(tmp_path, "2.nii.gz")
    studies = found(table(tmp_path, "p1,1.nii.gz,ct", "p2,2.nii.gz,ct"))
    assert studies["p1"].problem == f"{tmp_path / '1.nii.gz'} does not exist"
    assert studies["p2"].problem is None


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ("subject,file,channel", "p1,a,ct", "no column 'filePath'"),
        ("subject,filePath,channel", "p1,,ct", ":2: subject, filePath or channel is empty"),
        ("subject,filePath,channel", 'p1,"a,ct', "cannot be read as a CSV file"),
        ("subject,filePath,channel", "../p1,a.nii,ct", "'../p1' cannot be the name of a folder"),
        ("subject,filePath,channel", "a:b,a.nii,ct", "cannot be the name of a folder"),
        ("subject,filePath,channel", "end.,a.nii,ct", "cannot be the name of a folder"),
    ],
)
def test_malformed_table_is_refused(tmp_path: Path, header: str, row: str, words: str) -> None:
    with pytest.raises(InputError, match=words.replace(".", r"\.")):
        found(table(tmp_path, row, header=header))
