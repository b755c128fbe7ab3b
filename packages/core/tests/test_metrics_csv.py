"""Ready-made scores: metrics.csv as older toolboxes wrote it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from innereye_core.builtin.metrics_csv import read_metrics
from innereye_core.errors import InputError
from innereye_core.model import SubjectScore

HEADER = "Patient,Structure,Dice,HausdorffDistance_mm,MeanDistance_mm\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.csv"


def read(path: Path, rows: str, *structures: str, header: str = HEADER) -> list[SubjectScore]:
    path.write_text(header + rows)
    return read_metrics(path, structures or ("lung", "heart"))


def test_dice_by_subject_and_structure_in_the_order_of_the_model(path: Path) -> None:
    rows = "8,heart,0.5,inf,inf\n9,heart,0.75,1,1\n8,lung,1.0,inf,inf\n9,lung,0,,\n"
    assert read(path, rows) == [
        SubjectScore("8", {"lung": 1.0, "heart": 0.5}),
        SubjectScore("9", {"lung": 0.0, "heart": 0.75}),
    ]


@pytest.mark.parametrize("written", ["", " ", "nan", "NaN", "NAN"])
def test_empty_or_nan_dice_is_not_defined(path: Path, written: str) -> None:
    (score,) = read(path, f"8,lung,{written},1,1\n", "lung")
    assert math.isnan(score.dice["lung"])


def test_columns_in_another_order_and_further_ones(path: Path) -> None:
    header = "seriesId,Dice,Patient,Structure\n"
    assert read(path, "x,0.5,8,lung\n", "lung", header=header) == [SubjectScore("8", {"lung": 0.5})]


def test_byte_order_mark_windows_lines_and_blanks(path: Path) -> None:
    path.write_bytes(f"{HEADER} 8 , lung ,0.5,1,1\n\n".replace("\n", "\r\n").encode("utf-8-sig"))
    assert read_metrics(path, ["lung"]) == [SubjectScore("8", {"lung": 0.5})]


@pytest.mark.parametrize("name", ["background", "Background", "BACKGROUND"])
def test_background_does_not_count(path: Path, name: str) -> None:
    assert read(path, f"8,{name},0.99,1,1\n8,lung,0.5,1,1\n", "lung") == [SubjectScore("8", {"lung": 0.5})]


def test_file_of_innereye(shared: Path, path: Path) -> None:
    text = next(
        file.read_text()
        for file in sorted((shared / "golden" / "select").glob("*.csv"))
        if file.read_text().startswith(HEADER.strip())
    )
    path.write_text(text)

    scores = read_metrics(path, ["lung_l", "lung_r", "spinalcord"])

    assert scores == [SubjectScore(subject, dict.fromkeys(["lung_l", "lung_r", "spinalcord"], 0.0)) for subject in "89"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", r"metrics\.csv: has no rows; remove the file"),
        ("8,background,1,1,1\n", r"metrics\.csv: has no rows"),
        ("8,lung,0.5,1,1\n", r"metrics\.csv: subject '8' has no row for structure 'heart'; add it"),
        (
            "8,lung,0.5,1,1\n8,liver,0.5,1,1\n",
            r"metrics\.csv:3: structure 'liver' is none of the model's \(lung, heart\)",
        ),
        ("8,lung,0.5,1,1\n8,lung,0.6,1,1\n", r"metrics\.csv:3: subject '8', structure 'lung' is there twice"),
        ("8,lung,good,1,1\n", r"metrics\.csv:2: Dice 'good' is no number"),
        ("8,lung,1.01,1,1\n", r"metrics\.csv:2: Dice '1\.01' is outside 0…1"),
        ("8,lung,-0.1,1,1\n", r"metrics\.csv:2: Dice '-0\.1' is outside 0…1"),
        ("8,lung,inf,1,1\n", r"metrics\.csv:2: Dice 'inf' is outside 0…1"),
        (",lung,0.5,1,1\n", r"metrics\.csv:2: names no Patient"),
        ("8\n", r"metrics\.csv:2: structure '' is none of the model's"),
    ],
    ids=[
        "no rows",
        "background alone",
        "missing structure",
        "unknown structure",
        "doubled row",
        "text",
        "above 1",
        "below 0",
        "infinite",
        "no patient",
        "short row",
    ],
)
def test_table_that_cannot_be_trusted(path: Path, rows: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(path, rows)


def test_table_that_may_not_be_read(path: Path, as_nobody: Callable[..., str]) -> None:
    read(path, "8,lung,0.5,1,1\n", "lung")
    path.chmod(0o000)
    outcome = as_nobody(path.parent, lambda: read_metrics(path, ["lung"]))
    assert outcome == f"InputError: {path}: cannot be read: Permission denied; make it readable"


@pytest.mark.parametrize("column", ["Patient", "Structure", "Dice"])
def test_missing_column(path: Path, column: str) -> None:
    with pytest.raises(InputError, match=rf"metrics\.csv: has no column '{column}'"):
        read(path, "8,lung,0.5,1,1\n", header=HEADER.replace(column, "Other"))


@pytest.mark.parametrize("content", [HEADER.encode() + b"8,l\xfcng,0.5,1,1\n", b""], ids=["Latin-1", "empty"])
def test_what_is_no_table(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"metrics\.csv: (is no UTF-8 table|has no column)"):
        read_metrics(path, ["lung"])
