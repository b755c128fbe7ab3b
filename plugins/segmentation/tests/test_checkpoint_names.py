"""A file name says the format of a checkpoint and mostly its epoch."""

from __future__ import annotations

from pathlib import Path

import pytest

from innereye_segmentation.checkpoints.names import epoch_in_name, format_of


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("3_checkpoint.pth.tar", "innereye"),
        ("best_checkpoint.pth.tar", "innereye"),
        ("last.ckpt", "lightning"),
        ("epoch_3.pt", "state-dict"),
        ("EPOCH_3.PTH", "state-dict"),
        ("3_checkpoint.safetensors", "safetensors"),
        ("3_checkpoint.tar", None),
        ("notes.txt", None),
        ("._3_checkpoint.pth.tar", None),
    ],
)
def test_format_of_a_file(name: str, expected: str | None) -> None:
    assert format_of(Path("checkpoints") / name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("3_checkpoint.pth.tar", 3),
        ("120_checkpoint.safetensors", 120),
        ("epoch_7.pt", 7),
        ("unet-epoch=12-dice=0.91.pth", 12),
        ("Epoch=4.pt", 4),
        ("epoch_4_epoch=4.pt", 4),
        ("epoch_4_epoch_5.pt", None),
        ("superepoch_4.pt", None),
        ("x3_checkpoint.pt", None),
        ("best.pt", None),
    ],
)
def test_epoch_in_a_name(name: str, expected: int | None) -> None:
    assert epoch_in_name(Path("run_epoch_99") / name) == expected
