"""``innereye register``: a package becomes a numbered version of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from innereye_core.cli.options import json_option, registration_options, take_registration
from innereye_core.cli.output import print_json, progress
from innereye_core.cli.verbosity import verbosity_options
from innereye_core.model import RegisteredModel


@click.command(epilog="Example: innereye register runs/prostate/final_model --tag site=Basel")
@click.argument("package", type=click.Path(path_type=Path))
@registration_options
@json_option
@verbosity_options
def register(package: Path, as_json: bool, **options: Any) -> int:
    """Register PACKAGE, and print its model id."""
    from innereye_core.host import installed_host
    from innereye_core.manifest import open_package
    from innereye_core.registration import register as register_package

    host = installed_host()
    opened = open_package(package)
    model = register_package(opened, take_registration(options), host=host, progress=progress())
    if as_json:
        print_json(registration_document(model, opened.manifest.run.id))
    else:
        click.echo(model.id)
    return 1 if host.failed_observers else 0


def registration_document(model: RegisteredModel, run_id: str) -> dict[str, Any]:
    """What ``--json`` prints of a registration."""
    return {"id": model.id, "name": model.name, "version": model.version, "registry": model.registry, "run": run_id}
