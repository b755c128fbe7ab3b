"""Reads dataset.csv: which images and masks the validation split has. Imports no torch."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from innereye_core.errors import InputError

_SPLITS = ("train", "val", "test")
_COLUMNS = ("subject", "filePath", "channel")
_REMEDY = "mark the rows of at least one subject with 'val' in the column 'split'"


@dataclass(frozen=True)
class ValidationSubject:
    """The files of one subject."""

    subject: str
    images: tuple[Path, ...]
    """One file per image channel, in the order of the config."""
    masks: Mapping[str, Path]
    """Structure name → file."""


@dataclass(frozen=True)
class _Row:
    line: int
    subject: str
    channel: str
    file: Path
    split: str


def read_validation_split(
    path: Path, image_channels: Sequence[str], structure_names: Sequence[str]
) -> tuple[ValidationSubject, ...]:
    """The subjects of the validation split, in the order of the file.

    The columns ``subject``, ``filePath`` (relative to the file) and ``channel`` are needed, ``split`` is train, val or
    test; others are ignored, and so are channels that are neither an image channel nor a structure.

    Args:
        path: the dataset.csv.
        image_channels: channels that are images.
        structure_names: channels that are masks.

    Raises:
        InputError: the file is missing or malformed; the validation split is empty; a subject is in two splits, lacks a
            channel or has it twice; a file does not exist.
    """
    rows = _read_rows(path)
    validation: dict[str, dict[str, _Row]] = {}
    split_of: dict[str, _Row] = {}
    wanted = [*image_channels, *structure_names]
    for row in rows:
        first = split_of.setdefault(row.subject, row)
        if first.split != row.split:
            raise InputError(
                f"{path}:{row.line}: subject {row.subject!r} is in split {row.split!r} here and in {first.split!r} in "
                f"line {first.line}; keep all rows of a subject in one split"
            )
        if row.split == "val":
            channels = validation.setdefault(row.subject, {})
            if row.channel in channels:
                raise InputError(
                    f"{path}:{row.line}: subject {row.subject!r} has channel {row.channel!r} already in line "
                    f"{channels[row.channel].line}; remove one of the two"
                )
            if row.channel in wanted:
                channels[row.channel] = row
    if not validation:
        raise InputError(f"{path}: empty validation split; {_REMEDY}")
    for subject, channels in validation.items():
        _check_complete(path, subject, channels, wanted)
    return tuple(
        ValidationSubject(
            subject=subject,
            images=tuple(channels[name].file for name in image_channels),
            masks={name: channels[name].file for name in structure_names},
        )
        for subject, channels in validation.items()
    )


def _check_complete(path: Path, subject: str, channels: Mapping[str, _Row], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in channels]
    if missing:
        raise InputError(
            f"{path}: subject {subject!r} is in the validation split, but has no row for channel "
            f"{', '.join(map(repr, missing))}; add it, or take the subject out of the split"
        )
    for row in channels.values():
        if not row.file.is_file():
            raise InputError(f"{path}:{row.line}: {row.file} does not exist; filePath is relative to {path.name}")


def _read_rows(path: Path) -> list[_Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            return [_row(path, reader.line_num, header, cells) for cells in reader if cells]
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror or error}; candidates are scored on the images that it names"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is no CSV file in UTF-8: {error}; save it as one") from error


def _check_header(path: Path, header: Sequence[str]) -> None:
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise InputError(f"{path}:1: has no column {', '.join(map(repr, missing))}; the first line names the columns")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise InputError(f"{path}:1: column {repeated[0]!r} is there twice; remove one of the two")
    if "split" not in header:
        raise InputError(f"{path}:1: empty validation split, there is no column 'split'; {_REMEDY}")


def _row(path: Path, line: int, header: Sequence[str], cells: Sequence[str]) -> _Row:
    if len(cells) != len(header):
        raise InputError(f"{path}:{line}: has {len(cells)} cells for {len(header)} columns; quote cells with commas")
    values = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    empty = [name for name in _COLUMNS if not values[name]]
    if empty:
        raise InputError(f"{path}:{line}: {empty[0]} is empty; fill it in, or remove the row")
    if values["split"] not in _SPLITS:
        raise InputError(
            f"{path}:{line}: split {values['split']!r}; it must be {', '.join(_SPLITS[:-1])} or {_SPLITS[-1]}"
        )
    return _Row(line, values["subject"], values["channel"], path.parent / values["filePath"], values["split"])
