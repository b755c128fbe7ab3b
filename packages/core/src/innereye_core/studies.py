"""Finds the studies that are to be scored: sub-folders with a file per channel, single files, or rows of a CSV file."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from innereye_core.errors import InputError

MASK_CHANNEL = "mask"
"""Channel of the mask outside of which everything is background, where the model has no channel of that name."""

_NAME = re.compile(r"[^\x00-\x1f/\\:*?\"<>|. ][^\x00-\x1f/\\:*?\"<>|]{0,199}")
"""What can be the name of a folder everywhere."""


@dataclass(frozen=True)
class StudyFiles:
    """The files of one patient."""

    name: str
    """The name of the study's folder of results."""
    images: tuple[Path, ...] = ()
    """One per image channel, in the order of the config."""
    mask: Path | None = None
    problem: str | None = None
    """Why it cannot be scored, where that shows already."""


def find_studies(source: Path, channels: Sequence[str], suffixes: Iterable[str]) -> tuple[StudyFiles, ...]:
    """The studies in a folder or CSV file, sorted by name.

    - A CSV file has the columns ``subject``, ``filePath`` (relative to the file) and ``channel``, as dataset.csv has;
      other columns, and rows of other channels, are ignored.
    - In a folder, each sub-folder is a study with the files ``CHANNEL.nii.gz`` (or another known ending); for a model
      with one channel, also each file is a study, named after the file.

    A channel ``mask`` that is not one of the model's is the study's mask. A study that lacks a channel, or has one
    twice, is found with its ``problem``.

    Args:
        source: the folder or CSV file.
        channels: the image channels of the model, in its order.
        suffixes: endings of image files, in lower case, such as ``.nii.gz``.

    Raises:
        InputError: there is no study, the CSV file is malformed, two studies have one name, or a name cannot be that of
            a folder.
    """
    if source.is_dir():
        found = _in_folder(source, channels, sorted(suffixes, key=len, reverse=True))
    elif source.is_file():
        found = _in_csv(source, channels)
    else:
        raise InputError(f"{source}: no such folder or CSV file with studies")
    if not found:
        raise InputError(
            f"{source}: holds no study; make a folder per study with {channels[0]}.nii.gz"
            + (" and so on" if len(channels) > 1 else ", or put the image files there")
        )
    for name in found:
        if _NAME.fullmatch(name) is None or name.endswith((".", " ")):
            raise InputError(f"{source}: {name!r} cannot be the name of a folder of results; rename the study")
    folded: dict[str, str] = {}
    for name in found:  # some file systems do not tell "A" from "a"
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise InputError(f"{source}: studies {other!r} and {name!r} differ in case only; rename one")
    return tuple(found[name] for name in sorted(found))


# --- a folder ---------------------------------------------------------------------------------------------------------


def _in_folder(source: Path, channels: Sequence[str], suffixes: Sequence[str]) -> dict[str, StudyFiles]:
    found: dict[str, StudyFiles] = {}
    for path in sorted(source.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            study = _study(path.name, _channels_in(path, channels, suffixes), channels)
        else:
            stem = _stem(path, suffixes)
            if stem is None:
                continue
            if len(channels) > 1:
                raise InputError(
                    f"{path}: is a file, but the model takes {len(channels)} channels ({', '.join(channels)}); make a "
                    "folder per study"
                )
            study = StudyFiles(stem, (path,))
        if study.name in found:
            raise InputError(f"{source}: study {study.name!r} is there twice; rename or remove one")
        found[study.name] = study
    return found


def _channels_in(folder: Path, channels: Sequence[str], suffixes: Sequence[str]) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        stem = None if path.name.startswith(".") or not path.is_file() else _stem(path, suffixes)
        if stem is not None and stem in (*channels, MASK_CHANNEL):
            files.setdefault(stem, []).append(path)
    return files


def _stem(path: Path, suffixes: Sequence[str]) -> str | None:
    """The name without its ending, where that is a known one; the longest ending counts."""
    name = path.name.lower()
    suffix = next((suffix for suffix in suffixes if name.endswith(suffix) and len(name) > len(suffix)), None)
    return None if suffix is None else path.name[: -len(suffix)]


# --- a CSV file -------------------------------------------------------------------------------------------------------


def _in_csv(source: Path, channels: Sequence[str]) -> dict[str, StudyFiles]:
    studies: dict[str, dict[str, list[Path]]] = {}
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, skipinitialspace=True)
            missing = [name for name in ("subject", "filePath", "channel") if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{source}:1: has no column {missing[0]!r}; the first line names the columns")
            for row in reader:
                subject, name, channel = (row[key] for key in ("subject", "filePath", "channel"))
                if not (subject and name and channel):
                    raise InputError(f"{source}:{reader.line_num}: subject, filePath or channel is empty; fill it in")
                files = studies.setdefault(subject.strip(), {})
                if channel.strip() in (*channels, MASK_CHANNEL):
                    files.setdefault(channel.strip(), []).append(source.parent / name.strip())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{source}: cannot be read as a CSV file in UTF-8: {error}") from None
    return {name: _study(name, files, channels) for name, files in studies.items()}


def _study(name: str, files: Mapping[str, Sequence[Path]], channels: Sequence[str]) -> StudyFiles:
    for channel in channels:
        if channel not in files:
            return StudyFiles(name, problem=f"has no channel {channel!r}; the model takes {', '.join(channels)}")
    for channel, paths in files.items():
        if len(paths) > 1:
            return StudyFiles(name, problem=f"has channel {channel!r} twice: {paths[0].name}, {paths[1].name}")
        if not paths[0].is_file():
            return StudyFiles(name, problem=f"{paths[0]} does not exist")
    mask = None if MASK_CHANNEL in channels else files.get(MASK_CHANNEL)
    return StudyFiles(name, tuple(files[channel][0] for channel in channels), None if mask is None else mask[0])
