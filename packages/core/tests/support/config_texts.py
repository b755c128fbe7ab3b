"""A model.yaml with the required keys alone, and the ways in which tests change it."""

from __future__ import annotations

from pathlib import Path

from innereye_core.config import ModelConfig
from innereye_core.config_files import read_model_config

REQUIRED = """\
schema_version: 1
model_name: Prostate
structures: [{name: prostate}, {name: bladder}]
image_channels: [ct]
network: {factory: yourcode.nets:build_net}
inference: {crop_size_zyx: [64, 224, 224]}
"""


def read_changed(folder: Path, added: str = "", replace: tuple[str, str] | None = None) -> ModelConfig:
    """Read the required keys and what is added, or a text where one piece is replaced by another."""
    text = REQUIRED if replace is None else REQUIRED.replace(*replace)
    assert replace is None or text != REQUIRED
    path = folder / "model.yaml"
    path.write_text(text + added)
    return read_model_config(path)
