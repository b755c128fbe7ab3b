"""``innereye config``: check a model config, or print its JSON Schema."""

from __future__ import annotations

from pathlib import Path

import click

from innereye_core.cli.output import print_json
from innereye_core.cli.verbosity import verbosity_options


@click.group(epilog="Example: innereye config check runs/prostate/model.yaml")
@verbosity_options
def config() -> None:
    """Check a model config, or print its JSON Schema."""


@config.command(epilog="Example: innereye config check runs/prostate/model.yaml")
@click.argument("file", type=click.Path(path_type=Path))
@verbosity_options
def check(file: Path) -> None:
    """Check FILE, a model.yaml or a model_inference_config.json."""
    from innereye_core.config_files import InnerEyeConfig, read_inference_config, read_model_config
    from innereye_core.errors import InputError

    if file.suffix != ".json":
        model = read_model_config(file)
        code = model.extra_code_directory
        if code is not None and not (file.parent / code).is_dir():
            raise InputError(f"{file}: extra_code_directory: {file.parent / code} is no folder")
        click.echo(f"{file}: {model.model_name}, a valid model config")
        return
    packaged = read_inference_config(file)
    if isinstance(packaged, InnerEyeConfig):
        click.echo(f"{file}: {packaged.model_name}, written by InnerEye; the network's settings are not in it")
    else:
        click.echo(f"{file}: {packaged.config.model_name}, a valid packaged config")


@config.command(epilog="Example: innereye config schema > model.schema.json")
@verbosity_options
def schema() -> None:
    """Print the JSON Schema of model.yaml."""
    from innereye_core.config_files import model_config_schema

    print_json(model_config_schema())
