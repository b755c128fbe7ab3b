"""What the name of a checkpoint file says: its format and, in most formats, its epoch. Imports no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, TypeAlias

FormatName: TypeAlias = Literal["innereye", "lightning", "state-dict", "safetensors"]

_SUFFIXES: dict[str, FormatName] = {
    ".pth.tar": "innereye",
    ".ckpt": "lightning",
    ".pt": "state-dict",
    ".pth": "state-dict",
    ".safetensors": "safetensors",
}

_NUMBERED = re.compile(r"(\d+)_checkpoint\.")
_EPOCH = re.compile(r"(?<![a-z])epoch[_=](\d+)")


def format_of(path: Path) -> FormatName | None:
    """The format that a file of this name has, or None. Hidden files have none."""
    name = path.name.lower()
    if name.startswith("."):
        return None
    return next((format_name for suffix, format_name in _SUFFIXES.items() if name.endswith(suffix)), None)


def epoch_in_name(path: Path) -> int | None:
    """The epoch in names such as ``3_checkpoint.pth.tar``, ``unet_epoch_3.pt``, ``epoch=3-dice=0.9.safetensors``.

    None where there is none, and where the name has two that differ.
    """
    name = path.name.lower()
    if numbered := _NUMBERED.match(name):
        return int(numbered.group(1))
    epochs = {int(number) for number in _EPOCH.findall(name)}
    return epochs.pop() if len(epochs) == 1 else None
