"""``innereye plugins``: what is installed, and what is blocked."""

from __future__ import annotations

import dataclasses

import click

from innereye_core.cli.options import json_option
from innereye_core.cli.output import print_json, print_table
from innereye_core.cli.verbosity import verbosity_options


@click.command(epilog="Example: INNEREYE_DISABLED_PLUGINS=demo innereye plugins")
@json_option
@verbosity_options
def plugins(as_json: bool) -> None:
    """List the installed plugins, their hooks, and what is blocked."""
    from innereye_core.host import installed_host

    found = installed_host().plugins
    if as_json:
        print_json([{**dataclasses.asdict(plugin), "hooks": list(plugin.hooks)} for plugin in found])
        return
    rows = [
        [plugin.name, plugin.distribution, plugin.version, "blocked" if plugin.blocked else ", ".join(plugin.hooks)]
        for plugin in found
    ]
    print_table(["plugin", "distribution", "version", "hooks"], rows)
