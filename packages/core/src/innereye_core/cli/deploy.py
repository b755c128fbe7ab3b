"""``innereye deploy``: from a training run to a registered model in one go."""

from __future__ import annotations

from typing import Any

import click

from innereye_core.cli.options import (
    ensemble_timeout_option,
    json_option,
    packaging_options,
    registration_options,
    selection_options,
    take_packaging,
    take_registration,
    take_selection,
)
from innereye_core.cli.output import print_json, progress
from innereye_core.cli.register import registration_document
from innereye_core.cli.select import print_selection
from innereye_core.cli.verbosity import verbosity_options
from innereye_core.deployment import Deployment


@click.command(epilog="Example: innereye deploy runs/prostate --tag site=Basel")
@click.argument("run")
@selection_options
@packaging_options
@ensemble_timeout_option
@registration_options
@json_option
@verbosity_options
def deploy(run: str, as_json: bool, **options: Any) -> int:
    """Select an epoch of RUN, package it, register it, and tag the run with its model id."""
    from innereye_core.deployment import deploy as deploy_run
    from innereye_core.host import installed_host

    host = installed_host()
    selection, packaging, registration = take_selection(options), take_packaging(options), take_registration(options)
    deployment = deploy_run(run, selection, packaging, registration, host=host, progress=progress(), **options)
    if as_json:
        document = _document(deployment)
        if options["ensemble"]:
            document["children"] = [_document(child) for child in deployment.children]
        if deployment.ensemble is not None:
            document["ensemble"] = registration_document(deployment.ensemble, str(deployment.run.parent))
        print_json(document)
    else:
        _print(deployment)
    return 1 if host.failed_observers else 0


def _document(deployment: Deployment) -> dict[str, Any]:
    from innereye_core.packaging.validation_table import selection_document

    selections = [selection_document(selection) for selection in deployment.selections]
    document = registration_document(deployment.model, deployment.run.id)
    document["package"] = str(deployment.package.folder)
    document["selection"] = selections[0] if len(selections) == 1 else {"folds": selections}
    return document


def _print(deployment: Deployment) -> None:
    for child in deployment.children:
        _print(child)
    if not deployment.children:
        print_selection(deployment.selections[0])
    click.echo(str(deployment.package.folder))
    click.echo(deployment.model.id)
    if deployment.ensemble is not None:
        click.echo(deployment.ensemble.id)
