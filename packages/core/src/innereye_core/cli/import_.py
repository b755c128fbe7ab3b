"""``innereye import``: make packages of models that other toolboxes packaged."""

from __future__ import annotations

from pathlib import Path

import click

from innereye_core.cli.options import json_option, output_folder_option
from innereye_core.cli.output import print_json
from innereye_core.cli.verbosity import verbosity_options


@click.group("import", epilog="Example: innereye import innereye Prostate_892 --config model.yaml --output imported")
@verbosity_options
def import_() -> None:
    """Make packages of models that other toolboxes packaged."""


@import_.command(epilog="Example: innereye import innereye Prostate_892 --config model.yaml --output imported")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--config",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="A complete model.yaml: what InnerEye's Python classes said about the model.",
)
@output_folder_option("Folder that shall hold the package.", required=True)
@click.option(
    "--environment",
    "environments",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Conda environment file to merge last; may be repeated.",
)
@json_option
@verbosity_options
def innereye(
    folder: Path, config: Path, output: Path, replace: bool, environments: tuple[Path, ...], as_json: bool
) -> int:
    """Make a package of FOLDER, which InnerEye wrote: the folder with model_inference_config.json."""
    from innereye_core.host import installed_host
    from innereye_core.importing import import_innereye
    from innereye_core.packaging.plan import PackageOptions

    host = installed_host()
    options = PackageOptions(environments=environments, replace=replace)
    made = import_innereye(folder, config, output, options, host=host)
    if as_json:
        members = [{"path": m.path, "epoch": m.epoch, "fold": m.fold, "score": m.score} for m in made.manifest.members]
        print_json({"package": str(made.folder), "digest": made.digest, "checkpoints": members})
    else:
        click.echo(str(made.folder))
    return 1 if host.failed_observers else 0
