"""``innereye select``: which epoch of a run would be deployed."""

from __future__ import annotations

import math
from typing import Any

import click

from innereye_core.cli.options import json_option, selection_options, take_selection
from innereye_core.cli.output import print_json, print_table, progress
from innereye_core.cli.verbosity import verbosity_options
from innereye_core.model import Selection


@click.command(epilog="Example: innereye select runs/prostate --epochs-to-test 100,120,140")
@click.argument("run")
@selection_options
@json_option
@verbosity_options
def select(run: str, as_json: bool, **options: Any) -> None:
    """Select the epoch of RUN that is to be deployed."""
    from innereye_core.deployment import select as select_run

    selection = select_run(run, take_selection(options), progress=progress())
    if as_json:
        from innereye_core.packaging.validation_table import selection_document

        print_json(selection_document(selection))
    else:
        print_selection(selection)


def print_selection(selection: Selection) -> None:
    """Print the table of candidates, the chosen one marked."""
    names = list(dict.fromkeys(name for scored in selection.candidates for name in scored.structures))
    rows = [
        [
            "→" if scored.epoch == selection.selected.epoch else "",
            str(scored.epoch),
            _dice(scored.score),
            *(_dice(scored.structures.get(name, math.nan)) for name in names),
        ]
        for scored in selection.candidates
    ]
    print_table(["", "epoch", "Dice", *names], rows)
    click.echo(f"epoch {selection.selected.epoch} by policy {selection.policy}: {selection.selected.checkpoint}")


def _dice(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"
