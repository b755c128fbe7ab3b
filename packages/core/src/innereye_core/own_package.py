"""A package whose own copy of the toolbox is what runs: makes sure of that, and loads the plugins in it."""

from __future__ import annotations

from pathlib import Path

import innereye_core
from innereye_core.errors import IntegrityError
from innereye_core.host import Host
from innereye_core.manifest import open_package
from innereye_core.plugins import PluginModule


def own_host(folder: Path) -> Host:
    """What the plugins in the package offer: those that its manifest names, whatever else is installed.

    Args:
        folder: the package, resolved.

    Raises:
        InputError: the folder is not a package.
        IntegrityError: its manifest is damaged, or this code is not the package's own.
    """
    package = open_package(folder)
    if not Path(innereye_core.__file__).resolve().is_relative_to(folder):
        raise IntegrityError(
            f"{folder}: its own code was not used, but {Path(innereye_core.__file__).parent}; "
            "run the score.py that lies in the model folder"
        )
    return Host([PluginModule(plugin.name, plugin.module) for plugin in package.manifest.plugins])
