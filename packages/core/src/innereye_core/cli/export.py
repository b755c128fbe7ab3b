"""``innereye export``: a copy of a package that also holds the model in another form."""

from __future__ import annotations

from pathlib import Path

import click

from innereye_core.cli.options import json_option, output_folder_option, registry_option
from innereye_core.cli.output import print_json, progress
from innereye_core.cli.verbosity import verbosity_options
from innereye_core.config import as_plain


@click.command(epilog="Example: innereye export onnx Prostate:892 --output exported")
@click.argument("form")
@click.argument("model")
@output_folder_option("Folder that shall hold the copy.", required=True)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16"]),
    default="fp32",
    show_default=True,
    help="fp16: also write half-precision weights, for 'score --precision fp16'.",
)
@registry_option
@json_option
@verbosity_options
def export(
    form: str, model: str, output: Path, replace: bool, precision: str, registry: str | None, as_json: bool
) -> int:
    """Copy the package of MODEL, a folder or a model id, and add the model as FORM (onnx)."""
    from innereye_core.exporting import export as export_package
    from innereye_core.host import installed_host

    host = installed_host()
    made = export_package(
        form,
        model,
        output,
        precision=precision,
        replace=replace,
        registry=registry,
        host=host,
        progress=progress(),
    )
    if as_json:
        print_json(
            {
                "package": str(made.package.folder),
                "digest": made.package.digest,
                "added": list(made.added),
                "checks": as_plain(made.checks),
            }
        )
    else:
        for check in made.checks:
            click.echo(f"{check.outcome}: {check.name}: {check.detail}")
        click.echo(str(made.package.folder))
    return 1 if host.failed_observers else 0
