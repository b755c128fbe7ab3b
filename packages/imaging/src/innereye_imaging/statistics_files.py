"""Writes the statistics of structures as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from innereye_core.config import as_plain
from innereye_imaging.statistics import StructureStatistics

STATISTICS_SUFFIXES = (".json", ".csv")

_SCHEMA_VERSION = 1
_ZYX = ("z", "y", "x")
_RAS = ("right", "anterior", "superior")


def write_statistics(
    path: Path, statistics: Mapping[str, StructureStatistics], channels: Sequence[str], model: str
) -> None:
    """Write one of both, by the ending of the file.

    Args:
        path: ``*.csv``, or else JSON.
        statistics: structure name → statistics.
        channels: the image channels.
        model: model id, or folder.

    Raises:
        OSError: the disk is full or not writable.
    """
    text = _csv(statistics, channels) if path.suffix.lower() == ".csv" else _json(statistics, model)
    path.write_bytes(text.encode(errors="replace"))  # the name of a folder need not be text


def _json(statistics: Mapping[str, StructureStatistics], model: str) -> str:
    document = {"schema_version": _SCHEMA_VERSION, "model": model, "structures": as_plain(dict(statistics))}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _csv(statistics: Mapping[str, StructureStatistics], channels: Sequence[str]) -> str:
    """One row per structure; what a structure that was not found does not have is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            *("structure", "label", "voxels", "volume_ml", "components", "touches_border"),
            *(f"{end}_{axis}" for end in ("first", "last") for axis in _ZYX),
            *(f"{end}_{axis}_mm" for end in ("lowest", "highest") for axis in _RAS),
            *(f"mean_{channel}" for channel in channels),
        ]
    )
    for name, found in statistics.items():
        box = found.bounding_box
        corners = [""] * 12 if box is None else [*box.first_zyx, *box.last_zyx, *box.lowest_ras_mm, *box.highest_ras_mm]
        writer.writerow(
            [
                *(name, found.label, found.voxels, found.volume_ml, found.components, int(found.touches_border)),
                *corners,
                *(found.mean_intensity.get(channel, "") for channel in channels),
            ]
        )
    return text.getvalue()
