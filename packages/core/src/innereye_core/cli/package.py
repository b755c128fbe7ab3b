"""``innereye package``: make the self-contained folder of a run."""

from __future__ import annotations

from typing import Any

import click

from innereye_core.cli.options import (
    json_option,
    packaging_options,
    selection_options,
    take_packaging,
    take_selection,
)
from innereye_core.cli.output import print_json, progress
from innereye_core.cli.verbosity import verbosity_options


@click.command(epilog="Example: innereye package runs/prostate --environment extra.yml --output packages")
@click.argument("run")
@selection_options
@packaging_options
@json_option
@verbosity_options
def package(run: str, as_json: bool, **options: Any) -> int:
    """Select an epoch of RUN and make its package, final_model/."""
    from innereye_core.deployment import package as package_run
    from innereye_core.host import installed_host

    host = installed_host()
    made = package_run(run, take_selection(options), take_packaging(options), host=host, progress=progress(), **options)
    if as_json:
        members = [{"path": m.path, "epoch": m.epoch, "fold": m.fold, "score": m.score} for m in made.manifest.members]
        print_json({"package": str(made.folder), "digest": made.digest, "checkpoints": members})
    else:
        click.echo(str(made.folder))
    return 1 if host.failed_observers else 0
