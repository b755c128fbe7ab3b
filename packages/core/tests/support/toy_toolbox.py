"""A toolbox without numerical libraries, installed where a test wants it, and training runs for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

TOY_SOURCES = Path(__file__).parents[1] / "toy" / "toy_innereye"

MODEL_YAML = """\
schema_version: 1
model_name: Toy
structures: [{name: bright}]
image_channels: [ct]
network:
  factory: toy_innereye.networks:Threshold
inference: {crop_size_zyx: [4, 8, 8]}
"""

RUN_DICE = {1: 0.5, 2: 0.9, 3: 0.7}
"""Validation Dice of the epochs of a run."""

ENVIRONMENT_YML = "name: toy\nchannels: [conda-forge]\ndependencies: [python>=3.11]\n"


def write_distribution(
    site: Path,
    distribution: str,
    plugins: Mapping[str, str] | None = None,
    requires: Sequence[str] = (),
    version: str = "1.0",
) -> None:
    """Write the dist-info folder that pip would have written for what is in ``site``."""
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    metadata = ["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}", "Requires-Python: >=3.11"]
    (info / "METADATA").write_text("\n".join([*metadata, *(f"Requires-Dist: {name}" for name in requires)]) + "\n")
    points = [f"{name} = {module}" for name, module in (plugins or {}).items()]
    (info / "entry_points.txt").write_text("\n".join(["[innereye]", *points]) + "\n")
    files = [path.relative_to(site).as_posix() for path in sorted(site.rglob("*")) if path.is_file()]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in [*files, f"{info.name}/RECORD"]))


def write_toy_site(site: Path) -> Path:
    """Install the toy toolbox in a folder: its plugin is called ``toy``."""
    shutil.copytree(TOY_SOURCES, site / "toy_innereye", ignore=shutil.ignore_patterns("__pycache__"))
    write_distribution(site, "toy-innereye", {"toy": "toy_innereye.plugin"}, requires=["click>=8", "innereye-core"])
    return site


def write_checkpoint(folder: Path, epoch: int, threshold: float = 0.5, name: str | None = None) -> Path:
    path = folder / "checkpoints" / (name or f"{epoch}_checkpoint.pth.tar")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"epoch": epoch, "weights": {"threshold": threshold}, "optimizer": [0.1, 0.2]}
    path.write_text(json.dumps(content))
    return path


def write_metrics(folder: Path, epoch: int, dice: Mapping[str, Mapping[str, object]]) -> Path:
    """Write an epoch's metrics.csv: {subject: {structure: Dice}}."""
    path = folder / f"epoch_{epoch:03d}" / "Val" / "metrics.csv"
    path.parent.mkdir(parents=True)
    rows = ["Patient,Structure,Dice,HausdorffDistance_mm,MeanDistance_mm"]
    rows += [f"{subject},{name},{value},1.0,0.5" for subject, by in dice.items() for name, value in by.items()]
    path.write_text("\n".join(rows) + "\n")
    return path


def write_run(
    folder: Path, dice: Mapping[int, float] | None = None, *, epochs: Sequence[int] = (), model_yaml: str = MODEL_YAML
) -> Path:
    """Write a run: an epoch for each Dice value, with its metrics.csv, or ``epochs`` without scores."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.yaml").write_text(model_yaml)
    (folder / "environment.yml").write_text(ENVIRONMENT_YML)
    for epoch in [*(dice or {}), *epochs]:
        write_checkpoint(folder, epoch, threshold=epoch / 10)
    for epoch, value in (dice or {}).items():
        write_metrics(folder, epoch, {"p1": {"bright": value}, "p2": {"bright": value}})
    return folder


def write_folds(parent: Path) -> Path:
    parent.mkdir()
    (parent / "model.yaml").write_text(MODEL_YAML)
    (parent / "environment.yml").write_text(ENVIRONMENT_YML)
    for fold in range(3):
        child = write_run(parent / str(fold), {epoch: 0.9 if epoch == fold + 1 else 0.5 for epoch in (1, 2, 3)})
        (child / "model.yaml").unlink()
        (child / "environment.yml").unlink()
    return parent
