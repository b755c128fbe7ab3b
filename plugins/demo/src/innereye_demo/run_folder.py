"""Writes the files of the demo's training run: model config, environment, dataset. The training adds checkpoints."""

from __future__ import annotations

import csv
import importlib.metadata
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from innereye_core.config_files import MODEL_FILE
from innereye_core.packaging.environment_files import ENVIRONMENT_FILE
from innereye_demo.brain import Brain
from innereye_demo.regions import Slab, Split
from innereye_imaging.geometry import Image
from innereye_imaging.nifti import Nifti

MODEL_CONFIG = Path(__file__).parent / MODEL_FILE
"""The config of the demo's model."""

_CHANNEL = "t1"
_DATA_FOLDER = "data"


@dataclass(frozen=True)
class Subject:
    """The files of one region of the brain, which the dataset lists as if it were a subject."""

    name: str
    split: str
    """train or val."""
    image: Path
    masks: Mapping[str, Path]
    """Structure name → file."""


def write_settings(folder: Path) -> None:
    """Write model.yaml, and an environment.yml with what the training uses, as it is installed here."""
    shutil.copyfile(MODEL_CONFIG, folder / MODEL_FILE)
    python = ".".join(platform.python_version_tuple()[:2])
    installed = {name: importlib.metadata.version(name).partition("+")[0] for name in ("nilearn", "torch")}
    lines = ["name: innereye-demo", "channels:", "  - conda-forge", "dependencies:", f"  - python={python}"]
    lines += ["  - pip", "  - pip:", *(f"      - {name}=={version}" for name, version in installed.items())]
    (folder / ENVIRONMENT_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_dataset(folder: Path, brain: Brain, split: Split) -> tuple[Subject, ...]:
    """Write each region as NIfTI files of its own, at its place in space, and the dataset.csv that lists them.

    Returns:
        The regions to train on, then the one that is held out.
    """
    data = folder / _DATA_FOLDER
    data.mkdir()
    regions = [*((slab, "train") for slab in split.training), (split.held_out, "val")]
    subjects = tuple(_write_region(data, brain, slab, kind) for slab, kind in regions)
    with (folder / "dataset.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["subject", "filePath", "channel", "split"])
        for subject in subjects:
            for channel, path in _files(subject):
                table.writerow([subject.name, path.relative_to(folder).as_posix(), channel, subject.split])
    return subjects


def _write_region(folder: Path, brain: Brain, slab: Slab, split: str) -> Subject:
    masks = {name: Image(mask.astype(np.uint8), brain.t1.affine) for name, mask in brain.masks.items()}
    paths = {channel: folder / f"{slab.name}_{channel}.nii.gz" for channel in (_CHANNEL, *masks)}
    for channel, image in {_CHANNEL: brain.t1, **masks}.items():
        Nifti().write(paths[channel], slab.cut(image))
    return Subject(slab.name, split, paths[_CHANNEL], {name: paths[name] for name in masks})


def _files(subject: Subject) -> Iterator[tuple[str, Path]]:
    yield _CHANNEL, subject.image
    yield from subject.masks.items()
