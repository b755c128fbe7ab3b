"""Finds plugins, checks them, and says which are blocked.

Plugins are modules named by entry points of the group ``innereye``. ``INNEREYE_LOAD_PLUGINS`` (comma-separated) is an
allow-list, where empty means none; ``INNEREYE_DISABLED_PLUGINS`` is a block-list. Core's own providers are always
there.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

import pluggy

from innereye_core.contract import hookspecs
from innereye_core.contract.marker import GROUP
from innereye_core.errors import MissingPluginError

_log = logging.getLogger(__name__)

CORE_PLUGIN = "core"
LOAD_VARIABLE = "INNEREYE_LOAD_PLUGINS"
DISABLED_VARIABLE = "INNEREYE_DISABLED_PLUGINS"


@dataclass(frozen=True)
class PluginModule:
    """A plugin by its module path, as a manifest lists it: packaged copies have no entry points."""

    name: str
    module: str


@dataclass(frozen=True)
class InstalledPlugin:
    """What is known about a plugin, whether it was loaded or blocked."""

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...]
    """Hooks that it implements; empty for a blocked one, which is not imported."""
    blocked: bool


def discover() -> list[EntryPoint]:
    """Entry points of all installed plugins, sorted by name, because their own order is undefined.

    Raises:
        MissingPluginError: two distributions offer a plugin of the same name.
    """
    found = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    unique = {(point.name, _distribution(point)): point for point in found}
    for name, count in Counter(name for name, _ in unique).items():
        if count > 1 or name == CORE_PLUGIN:
            owners = " and ".join(distribution for other, distribution in unique if other == name)
            taken = f"{owners} and innereye-core" if name == CORE_PLUGIN else owners
            raise MissingPluginError(
                f"plugin name {name!r} is offered by {taken}; uninstall one of them, or have its author rename it"
            )
    return list(unique.values())


def load_plugins(modules: Sequence[PluginModule] | None = None) -> tuple[pluggy.PluginManager, list[InstalledPlugin]]:
    """A plugin manager with core's and all allowed plugins, checked.

    Args:
        modules: register exactly these instead of looking for installed ones.

    Raises:
        MissingPluginError: a plugin cannot be imported, implements a hook that does not exist or with arguments that it
            does not have, or an allow-list names one that is not installed.
    """
    from innereye_core.builtin import plugin as core_plugin

    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    _register(manager, core_plugin, CORE_PLUGIN, "innereye-core")
    from innereye_core import __version__

    installed = [InstalledPlugin(CORE_PLUGIN, "innereye-core", __version__, _hooks(manager, core_plugin), False)]
    if modules is not None:
        for plugin in modules:
            _register(manager, _import(plugin.module, plugin.name, plugin.module), plugin.name, plugin.module)
        return manager, installed
    found = discover()
    allowed = _allowed([point.name for point in found])
    for point in found:
        distribution = _distribution(point)
        version = point.dist.version if point.dist else "unknown"
        if point.name not in allowed:
            installed.append(InstalledPlugin(point.name, distribution, version, (), True))
            continue
        if point.attr:
            raise MissingPluginError(
                f"plugin {point.name!r} of {distribution}: its entry point {point.value!r} must name a module alone"
            )
        module = _import(point.module, point.name, distribution)
        _register(manager, module, point.name, distribution)
        installed.append(InstalledPlugin(point.name, distribution, version, _hooks(manager, module), False))
    return manager, installed


def _allowed(names: Iterable[str]) -> set[str]:
    """The names that may be loaded, by the two environment variables."""
    installed = set(names)
    blocked = _listed(DISABLED_VARIABLE) or set()
    if CORE_PLUGIN in blocked:
        raise MissingPluginError(f"{DISABLED_VARIABLE} names {CORE_PLUGIN!r}, which nothing works without; take it out")
    for name in sorted(blocked - installed):
        _log.info("%s names %r, which is not installed", DISABLED_VARIABLE, name)
    wanted = _listed(LOAD_VARIABLE)
    if wanted is None:
        return installed - blocked
    missing = sorted(wanted - installed - {CORE_PLUGIN})
    if missing:
        raise MissingPluginError(
            f"{LOAD_VARIABLE} names {missing[0]!r}, which is not installed; "
            f"installed are: {', '.join(sorted(installed)) or 'none'}"
        )
    return wanted - blocked


def _listed(variable: str) -> set[str] | None:
    value = os.environ.get(variable)
    return None if value is None else {name.strip() for name in value.split(",") if name.strip()}


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an unknown distribution"


def _import(module: str, name: str, distribution: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise MissingPluginError(
            f"plugin {name!r} of {distribution} cannot be imported: {type(error).__name__}: {_one_line(error)}; "
            f"reinstall it, or set {DISABLED_VARIABLE}={name}"
        ) from error


def _register(manager: pluggy.PluginManager, module: ModuleType, name: str, distribution: str) -> None:
    known = {attribute for attribute in vars(hookspecs) if attribute.startswith(f"{GROUP}_")}
    try:
        manager.register(module, name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:  # ValueError: one module under two names
        raise MissingPluginError(f"plugin {name!r} of {distribution}: {_one_line(error)}") from None
    for attribute, value in vars(module).items():
        unmarked = callable(value) and not hasattr(value, f"{GROUP}_impl") and not hasattr(value, f"{GROUP}_spec")
        if attribute in known and unmarked:
            raise MissingPluginError(
                f"plugin {name!r} of {distribution}: {attribute} is not marked with @hookimpl; mark it"
            )


def _hooks(manager: pluggy.PluginManager, module: ModuleType) -> tuple[str, ...]:
    return tuple(sorted(caller.name for caller in manager.get_hookcallers(module) or []))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
