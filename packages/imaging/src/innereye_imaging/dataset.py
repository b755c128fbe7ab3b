"""Reads dataset.csv: which images and masks the subjects of a split have."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from innereye_core.errors import InputError
from innereye_core.studies import MASK_CHANNEL

SplitName: TypeAlias = Literal["train", "val", "test"]

_SPLITS: tuple[SplitName, ...] = get_args(SplitName)
_TITLES = {"train": "training", "val": "validation", "test": "test"}
_COLUMNS = ("subject", "filePath", "channel")


@dataclass(frozen=True)
class Subject:
    """The files of one subject."""

    name: str
    images: tuple[Path, ...]
    """One file per image channel, in the order of the config."""
    references: Mapping[str, Path]
    """Structure name → file with its mask."""
    mask: Path | None = None
    """The region outside of which everything is background, where the dataset has one."""


@dataclass(frozen=True)
class DatasetSplit:
    """The subjects of one split, in the order of the file."""

    subjects: tuple[Subject, ...]
    """Those whose files are all there."""
    unusable: Mapping[str, str]
    """Subject that lacks something → what, in one line that names the file."""

    def complete(self) -> tuple[Subject, ...]:
        """Every subject of the split.

        Raises:
            InputError: one lacks something.
        """
        for problem in self.unusable.values():
            raise InputError(problem)
        return self.subjects


@dataclass(frozen=True)
class _Row:
    line: int
    subject: str
    channel: str
    file: Path
    split: str


def read_split(
    path: Path, split: SplitName, image_channels: Sequence[str], structure_names: Sequence[str]
) -> DatasetSplit:
    """The subjects of a split.

    The columns ``subject``, ``filePath`` (relative to the file) and ``channel`` are needed, ``split`` is train, val or
    test; others are ignored. So are channels that are neither an image channel nor a structure, but for ``mask``, which
    is the mask of the region of interest where the model has no channel or structure of that name.

    Args:
        path: the dataset.csv.
        split: which subjects.
        image_channels: channels that are images.
        structure_names: channels that are masks of structures.

    Raises:
        InputError: the file is missing or malformed; the split is empty; a subject is in two splits, or has a channel
            twice.
    """
    rows = _read_rows(path, split)
    channels_of: dict[str, dict[str, _Row]] = {}
    split_of: dict[str, _Row] = {}
    for row in rows:
        first = split_of.setdefault(row.subject, row)
        if first.split != row.split:
            raise InputError(
                f"{path}:{row.line}: subject {row.subject!r} is in split {row.split!r} here and in {first.split!r} in "
                f"line {first.line}; keep all rows of a subject in one split"
            )
        if row.split == split:
            channels = channels_of.setdefault(row.subject, {})
            if row.channel in channels:
                raise InputError(
                    f"{path}:{row.line}: subject {row.subject!r} has channel {row.channel!r} already in line "
                    f"{channels[row.channel].line}; remove one of the two"
                )
            if row.channel in (*image_channels, *structure_names, MASK_CHANNEL):
                channels[row.channel] = row
    if not channels_of:
        raise InputError(f"{path}: empty {_TITLES[split]} split; {_remedy(split)}")
    wanted = [*image_channels, *structure_names]
    has_region = MASK_CHANNEL not in wanted
    subjects, unusable = [], {}
    for name, channels in channels_of.items():
        problem = _problem(path, split, name, channels, wanted)
        if problem is not None:
            unusable[name] = problem
            continue
        region = channels.get(MASK_CHANNEL) if has_region else None
        subjects.append(
            Subject(
                name=name,
                images=tuple(channels[channel].file for channel in image_channels),
                references={structure: channels[structure].file for structure in structure_names},
                mask=None if region is None else region.file,
            )
        )
    return DatasetSplit(tuple(subjects), unusable)


def _problem(
    path: Path, split: SplitName, subject: str, channels: Mapping[str, _Row], wanted: Sequence[str]
) -> str | None:
    """What a subject lacks."""
    missing = [name for name in wanted if name not in channels]
    if missing:
        return (
            f"{path}: subject {subject!r} is in the {_TITLES[split]} split, but has no row for channel "
            f"{', '.join(map(repr, missing))}; add it, or take the subject out of the split"
        )
    for row in channels.values():
        if not row.file.is_file():
            return f"{path}:{row.line}: {row.file} does not exist; filePath is relative to {path.name}"
    return None


def _remedy(split: SplitName) -> str:
    return f"mark the rows of at least one subject with {split!r} in the column 'split'"


def _read_rows(path: Path, split: SplitName) -> list[_Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header, split)
            return [_row(path, reader.line_num, header, cells) for cells in reader if cells]
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror or error}; it names the images to score, and their masks"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is no CSV file in UTF-8: {error}; save it as one") from error


def _check_header(path: Path, header: Sequence[str], split: SplitName) -> None:
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise InputError(f"{path}:1: has no column {', '.join(map(repr, missing))}; the first line names the columns")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise InputError(f"{path}:1: column {repeated[0]!r} is there twice; remove one of the two")
    if "split" not in header:
        raise InputError(f"{path}:1: empty {_TITLES[split]} split, there is no column 'split'; {_remedy(split)}")


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
