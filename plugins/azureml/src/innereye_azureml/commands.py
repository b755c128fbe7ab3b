"""``innereye azureml``: score as an AzureML job, and register a model's environment."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from innereye_core.cli.options import json_option
from innereye_core.cli.output import print_json, progress
from innereye_core.cli.verbosity import verbosity_options
from innereye_core.registration import REGISTRY_VARIABLE

_REGISTRY = "azureml"
_DEFAULT_EXPERIMENT = "innereye-scoring"

_registry_option = click.option(
    "--registry",
    metavar="NAME[:PLACE]",
    help="Registry of MODEL; azureml:PLACE also names the workspace (default: INNEREYE_REGISTRY, else azureml).",
)


@click.group(epilog="Example: innereye azureml submit Prostate:latest ct.nii.gz --compute gpu-cluster")
@verbosity_options
def azureml() -> None:
    """Score as an AzureML job; register a model's environment."""


@azureml.command(epilog="Example: innereye azureml submit Prostate:892 ct.nii.gz --compute gpu-cluster")
@click.argument("model", metavar="MODEL")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--compute", metavar="NAME", required=True, help="Compute of the workspace that the job runs on.")
@click.option(
    "--experiment", metavar="NAME", default=_DEFAULT_EXPERIMENT, show_default=True, help="Experiment of the run."
)
@click.option(
    "--download",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    help="Folder for the segmentation (default: the current folder).",
)
@_registry_option
@json_option
@verbosity_options
def submit(
    model: str,
    images: tuple[Path, ...],
    compute: str,
    experiment: str,
    download: Path,
    registry: str | None,
    as_json: bool,
) -> None:
    """Segment IMAGE (one file per channel) with MODEL, a package folder or a model id, as an AzureML job."""
    from innereye_azureml.jobs import Target, score_as_job

    registry, place = _places(registry)
    scored = score_as_job(
        model,
        images,
        Target(compute, experiment, place),
        registry=registry,
        download=download,
        say=lambda line: click.echo(line, err=True),
        progress=progress(),
    )
    if as_json:
        print_json(asdict(scored) | {"segmentation": str(scored.segmentation)})
    else:
        click.echo(str(scored.segmentation))


@azureml.command(epilog="Example: innereye azureml environment Prostate:892")
@click.argument("model", metavar="MODEL")
@click.option("--name", metavar="NAME", help="Name of the environment (default: innereye- and the model's name).")
@_registry_option
@json_option
@verbosity_options
def environment(model: str, name: str | None, registry: str | None, as_json: bool) -> None:
    """Register the environment.yml of MODEL, a package folder or a model id, as an AzureML environment."""
    from innereye_azureml.environments import register_environment

    registry, place = _places(registry)
    registered = register_environment(model, name, registry=registry, place=place, progress=progress())
    if as_json:
        print_json({"id": registered.id, "name": registered.name, "version": registered.version})
    else:
        click.echo(registered.id)


def _places(registry: str | None) -> tuple[str, str | None]:
    """The registry that model ids are looked up in, and the workspace where it names one."""
    registry = registry or os.environ.get(REGISTRY_VARIABLE) or _REGISTRY
    name, _, place = registry.partition(":")
    return registry, place or None if name == _REGISTRY else None
