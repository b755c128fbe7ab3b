"""Checkpoints as JSON: {"epoch": 3, "weights": {"threshold": 0.5}, "optimizer": …}."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from innereye_core.digests import sha256_of_file
from innereye_core.errors import InputError, IntegrityError
from innereye_core.model import PackagedCheckpoint

OPENED: list[str] = []
"""Names of the files that were opened, in order: tests look at it."""


def read_checkpoint(path: Path) -> dict:
    OPENED.append(path.name)
    try:
        content = json.loads(path.read_text())
        return {"epoch": content["epoch"], "weights": dict(content["weights"]), **content}
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: is no toy checkpoint; train again") from None


def write_packaged(source: Path, target: Path) -> PackagedCheckpoint:
    content = read_checkpoint(source)
    for name, value in content["weights"].items():
        if not math.isfinite(value):
            raise IntegrityError(f"{source}: weight {name} is {value}; choose another epoch")
    kept = {key: content[key] for key in ("epoch", "weights")}
    target.write_text(json.dumps(kept))
    return PackagedCheckpoint(
        source_name=source.name,
        source_sha256=sha256_of_file(source),
        source_size=source.stat().st_size,
        stored_epoch=content["epoch"],
        removed=tuple(sorted(content.keys() - kept.keys())),
    )


class NumberedCheckpoints:
    """3_checkpoint.pth.tar: the epoch is in the name."""

    name = "toy-numbered"
    stitching_must_be_named = False

    def recognises(self, path: Path) -> bool:
        return re.fullmatch(r"\d+_checkpoint\.pth\.tar", path.name) is not None

    def epoch(self, path: Path) -> int:
        return int(path.name.partition("_")[0])

    def write_packaged(self, source: Path, target: Path) -> PackagedCheckpoint:
        return write_packaged(source, target)


class StoredEpochCheckpoints:
    """best.ckpt, last.ckpt: the epoch is inside, as Lightning has it."""

    name = "toy-lightning"
    stitching_must_be_named = True

    def recognises(self, path: Path) -> bool:
        return path.suffix == ".ckpt"

    def epoch(self, path: Path) -> int:
        return read_checkpoint(path)["epoch"]

    def write_packaged(self, source: Path, target: Path) -> PackagedCheckpoint:
        return write_packaged(source, target)
