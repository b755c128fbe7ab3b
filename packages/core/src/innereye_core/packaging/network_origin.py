"""Makes sure that the code of the network goes where the package goes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from innereye_core.contract.marker import GROUP
from innereye_core.errors import InputError
from innereye_core.model import MergedEnvironment, ToolboxSource
from innereye_core.packaging.source_trees import source_files

_COMPILED = {".so", ".pyd", ".dylib", ".dll"}


def carried_source(
    factory: str, extra_code: Path | None, toolbox: Sequence[ToolboxSource], environment: MergedEnvironment
) -> ToolboxSource | None:
    """The import package of a network factory that must be copied into the package, or None where it is there anyway.

    It is there anyway as part of the toolbox, of the extra code, or of a distribution that the environment lists.

    Args:
        factory: ``package.module:callable``.
        extra_code: folder with the network's own code, or None.
        toolbox: what travels in any case.
        environment: the merged environment.

    Raises:
        InputError: nobody could find the code later, and it cannot be copied.
    """
    name = factory.partition(":")[0].partition(".")[0]
    if name in {source.import_name for source in toolbox} or (extra_code is not None and name == extra_code.name):
        return None
    owners = _owners(name)
    listed = _listed_names(environment)
    if any(_normalised(owner) in listed for owner in owners):
        return None
    spec = importlib.util.find_spec(name)
    locations = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not owners:
        raise InputError(
            f"network.factory: {factory!r}: {name!r} is in no installed distribution ; "
            "install it, or name its folder as extra_code_directory"
        )
    folder = Path(locations[0]) if len(locations) == 1 else None
    if folder is None or any(path.suffix in _COMPILED for path, _ in source_files(folder)):
        raise InputError(
            f"network.factory: {factory!r}: distribution {owners[0]!r} is no single folder of Python files, so it "
            "cannot be copied; list it in the run's environment.yml"
        )
    version = importlib.metadata.version(owners[0])
    return ToolboxSource("Plugins", name, folder, owners[0], version)


def _owners(import_name: str) -> list[str]:
    """Distributions that an import package is from; editable ones are only found if they offer a plugin in it."""
    plugins = importlib.metadata.entry_points(group=GROUP)
    from_plugins = [p.dist.name for p in plugins if p.dist is not None and p.module.partition(".")[0] == import_name]
    return importlib.metadata.packages_distributions().get(import_name, []) or from_plugins


def _listed_names(environment: MergedEnvironment) -> set[str]:
    """Normalised names of everything that an environment lists, conda and pip."""
    from ruamel.yaml import YAML

    document = YAML(typ="safe", pure=True).load(environment.text) or {}
    entries: list[str] = []
    for entry in document.get("dependencies") or ():
        entries += entry.get("pip") or () if isinstance(entry, dict) else [entry.rpartition("::")[2]]
    names = (re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", entry) for entry in entries)
    return {_normalised(match.group()) for match in names if match is not None}


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
