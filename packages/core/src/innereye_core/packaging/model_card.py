"""The README.md of a package: what the model is, how well it did, how to run it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from innereye_core.config import ModelConfig
from innereye_core.model import Member, Run


def model_card(config: ModelConfig, members: Sequence[Member], run: Run) -> bytes:
    """Markdown for people, from what the package is made of."""
    images = " ".join(f"{channel}.nii.gz" for channel in config.image_channels)
    lines = [
        f"# {config.model_name}",
        "",
        f"Segments {', '.join(structure.title for structure in config.structures)} on {_input(config)}.",
        "",
        "Not a medical device: whoever uses it on patients is responsible for validating it for that use.",
        "",
        "## Use",
        "",
        "With the packages of `environment.yml` installed:",
        "",
        "```",
        f"python score.py {images}",
        "```",
        "",
        "`python score.py --help` lists the options. The code that runs is the code in this folder.",
        "`manifest.json` has the digest of every file; `innereye models verify .` checks them.",
        "",
        "## Structures",
        "",
        "| label | structure |",
        "| --- | --- |",
        *(f"| {label} | {structure.title} |" for label, structure in enumerate(config.structures, start=1)),
        "",
        "## Validation",
        "",
        *_validation(config, members),
        "",
        f"Trained in run `{run.id}`. The whole table is in `validation.json`.",
    ]
    return ("\n".join(lines) + "\n").encode()


def _input(config: ModelConfig) -> str:
    parts = [f"{', '.join(config.image_channels)} images"]
    if config.input.spacing_xyz_mm is not None:
        parts.append(f"of {' × '.join(f'{value:g}' for value in config.input.spacing_xyz_mm)} mm")
    if config.input.orientation is not None:
        parts.append(f"in {config.input.orientation} orientation")
    return " ".join(parts)


def _validation(config: ModelConfig, members: Sequence[Member]) -> list[str]:
    if not any(member.selection.evaluated for member in members):
        return ["The checkpoint was chosen without evaluating it on a validation set."]
    names = config.structure_names
    rows = [
        f"| checkpoint | epoch | mean Dice | {' | '.join(names)} |",
        f"| --- | --- | --- | {' | '.join('---' for _ in names)} |",
    ]
    for member in members:
        selected = member.selection.selected.epoch
        scored = next(scored for scored in member.selection.candidates if scored.epoch == selected)
        structures = " | ".join(_dice(scored.structures.get(name, math.nan)) for name in names)
        rows.append(f"| {member.path} | {selected} | {_dice(scored.score)} | {structures} |")
    return [*rows, "", "Dice on the validation set, by which the checkpoint was chosen: expect less on new patients."]


def _dice(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
