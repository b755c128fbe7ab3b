"""``innereye models``: what a registry holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from innereye_core.cli.options import (
    json_option,
    output_folder_option,
    pairs_argument,
    registry_option,
)
from innereye_core.cli.output import print_json, print_table, progress
from innereye_core.cli.verbosity import verbosity_options
from innereye_core.model import RegisteredModel


@click.group(epilog="Example: innereye models show Prostate:latest")
@verbosity_options
def models() -> None:
    """List, show, download, tag, verify and delete registered models."""


@models.command("list", epilog="Example: innereye models list --json")
@registry_option
@json_option
@verbosity_options
def list_models(registry: str | None, as_json: bool) -> None:
    """List every version that is not deleted."""
    from innereye_core.host import installed_host
    from innereye_core.registration import default_registry

    found = default_registry(installed_host(), registry).models()
    if as_json:
        print_json([_document(model) for model in found])
    elif found:
        rows = [[model.id, model.created, model.description] for model in found]
        print_table(["model", "created", "description"], rows)


@models.command(epilog="Example: innereye models show Prostate:892")
@click.argument("model_id", metavar="ID")
@registry_option
@json_option
@verbosity_options
def show(model_id: str, registry: str | None, as_json: bool) -> None:
    """Show one version: description, tags, properties."""
    from innereye_core.registered_models import find_model

    _print(find_model(model_id, registry), as_json)


@models.command(epilog="Example: innereye models download Prostate:892 --output models")
@click.argument("model_id", metavar="ID")
@output_folder_option("Folder that shall hold the package.", required=True)
@registry_option
@json_option
@verbosity_options
def download(model_id: str, output: Path, replace: bool, registry: str | None, as_json: bool) -> None:
    """Copy a model's package to DIR/final_model (or DIR/final_ensemble_model)."""
    from innereye_core.registered_models import download as download_model

    package = download_model(model_id, output, registry, replace=replace, progress=progress())
    if as_json:
        print_json({"package": str(package.folder), "digest": package.digest})
    else:
        click.echo(str(package.folder))


@models.command(epilog="Example: innereye models tag Prostate:892 status=approved")
@click.argument("model_id", metavar="ID")
@pairs_argument("tags")
@registry_option
@json_option
@verbosity_options
def tag(model_id: str, tags: dict[str, str], registry: str | None, as_json: bool) -> None:
    """Add or replace tags."""
    from innereye_core.host import installed_host
    from innereye_core.registered_models import parse_model_id
    from innereye_core.registration import default_registry

    source = default_registry(installed_host(), registry)
    _print(source.tag(source.get(*parse_model_id(model_id)), tags), as_json)


@models.command(epilog="Example: innereye models verify final_model")
@click.argument("reference", metavar="ID|FOLDER")
@registry_option
@json_option
@verbosity_options
def verify(reference: str, registry: str | None, as_json: bool) -> None:
    """Check every file of a package against its manifest."""
    from innereye_core.registered_models import verify_model

    found = verify_model(reference, registry, progress=progress())
    if as_json:
        print_json(
            {
                "package": found.title,
                "digest": found.digest,
                "files": found.files,
                "warnings": list(found.warnings),
            }
        )
        return
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{reference}: {found.files} files as listed, {found.digest}")


@models.command(epilog="Example: innereye models delete Prostate:1")
@click.argument("model_id", metavar="ID")
@registry_option
@verbosity_options
def delete(model_id: str, registry: str | None) -> None:
    """Delete one version; its number is never used again."""
    from innereye_core.errors import UsageError
    from innereye_core.host import installed_host
    from innereye_core.registered_models import parse_model_id
    from innereye_core.registration import default_registry

    name, version = parse_model_id(model_id)
    if version is None:
        raise UsageError(f"{model_id}: name the version to delete; 'latest' may be another one by now")
    source = default_registry(installed_host(), registry)
    source.delete(source.get(name, version))
    click.echo(f"deleted {model_id}")


def _document(model: RegisteredModel) -> dict[str, Any]:
    return {
        "id": model.id,
        "name": model.name,
        "version": model.version,
        "registry": model.registry,
        "description": model.description,
        "tags": dict(model.tags),
        "properties": dict(model.properties),
        "created": model.created,
    }


def _print(model: RegisteredModel, as_json: bool) -> None:
    if as_json:
        print_json(_document(model))
        return
    click.echo(f"{model.id}  ({model.registry}, {model.created})")
    if model.description:
        click.echo(model.description)
    for what, pairs in (("tags", model.tags), ("properties", model.properties)):
        if pairs:
            click.echo(f"{what}:")
            for key, value in sorted(pairs.items()):
                click.echo(f"  {key} = {value}")
