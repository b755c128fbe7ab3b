"""The typed façade over the hooks: collects named providers, checks them, and picks the one that was asked for.

Nothing else in the project calls a hook.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from innereye_core.contract import providers as contract
from innereye_core.errors import MissingPluginError, UsageError
from innereye_core.model import (
    EnvironmentFile,
    Package,
    PackagePlan,
    PlannedFile,
    RegisteredModel,
    Run,
    ToolboxSource,
)
from innereye_core.plugins import CORE_PLUGIN, PluginModule, load_plugins

_log = logging.getLogger(__name__)

P = TypeVar("P")

_DISTRIBUTIONS = {("innereye_registries", "azureml"): "innereye-azureml"}
"""Which distribution to install for a provider that the project offers but that is not there."""


class Host:
    """What the installed plugins offer.

    Args:
        modules: plugins to register by their module paths instead of looking for installed ones.
    """

    def __init__(self, modules: Sequence[PluginModule] | None = None) -> None:
        self._manager, self.plugins = load_plugins(modules)
        self._collections: dict[str, dict[str, Any]] = {}
        self.failed_observers: list[str] = []
        """Plugins and hooks that failed after something was published."""

    # --- named providers, in the order of plugin names, core's own last ---

    def run_sources(self) -> list[contract.RunSource]:
        """Ways to find and open training runs."""
        return self._providers("innereye_run_sources", contract.RunSource)

    def checkpoint_formats(self) -> list[contract.CheckpointFormat]:
        """Formats of checkpoint files."""
        return self._providers("innereye_checkpoint_formats", contract.CheckpointFormat)

    def evaluators(self) -> list[contract.Evaluator]:
        """Ways to score candidates, from the highest priority to the lowest."""
        found = self._providers("innereye_evaluators", contract.Evaluator)
        return sorted(found, key=lambda evaluator: -evaluator.priority)

    def image_formats(self) -> list[contract.ImageFormat]:
        """Image file formats."""
        return self._providers("innereye_image_formats", contract.ImageFormat)

    def runtimes(self) -> list[contract.Runtime]:
        """Runtimes that evaluate networks."""
        return self._providers("innereye_runtimes", contract.Runtime)

    def registries(self) -> list[contract.Registry]:
        """Places where packages live."""
        return self._providers("innereye_registries", contract.Registry)

    def policy(self, name: str) -> contract.SelectionPolicy:
        """The selection policy of this name."""
        return self._named("innereye_policies", contract.SelectionPolicy, name, "selection policy")

    def environment_merger(self, name: str) -> contract.EnvironmentMerger:
        """The environment merger of this name."""
        return self._named("innereye_environment_mergers", contract.EnvironmentMerger, name, "merge strategy")

    def packager(self, name: str) -> contract.Packager:
        """The packager of this name."""
        return self._named("innereye_packagers", contract.Packager, name, "packager")

    def registry(self, name: str) -> contract.Registry:
        """The registry of this name."""
        return self._named("innereye_registries", contract.Registry, name, "registry")

    def scorer(self) -> contract.Scorer:
        """The pipeline behind ``score``: the first that is not core's, by plugin name.

        Raises:
            MissingPluginError: none is installed.
        """
        scorers = self._providers("innereye_scorers", contract.Scorer)
        if not scorers:
            raise MissingPluginError("scoring needs more packages: pip install innereye-imaging innereye-segmentation")
        return scorers[0]

    # --- hooks that add ---

    def environment_files(self, run: Run) -> list[EnvironmentFile]:
        """Conda files that plugins add, in the order in which they are merged."""
        added: list[Sequence[EnvironmentFile]] = self._manager.hook.innereye_environment_files(run=run)
        return sorted((file for files in added for file in files), key=lambda file: file.priority)

    def toolbox_sources(self) -> list[ToolboxSource]:
        """Import packages that travel inside every package, by section and name."""
        added: list[Sequence[ToolboxSource]] = self._manager.hook.innereye_toolbox_sources()
        sources = [source for sources in added for source in sources]
        return sorted(sources, key=lambda source: (source.section, source.import_name))

    def package_files(self, plan: PackagePlan) -> list[PlannedFile]:
        """Extra files that plugins put into a package."""
        added: list[Sequence[PlannedFile]] = self._manager.hook.innereye_package_files(plan=plan)
        return [file for files in added for file in files]

    def commands(self, commands: contract.Commands) -> None:
        """Let plugins add their subcommands."""
        self._manager.hook.innereye_commands(commands=commands)

    # --- hooks that observe ---

    def after_package(self, package: Package) -> None:
        """Tell all observers about a package that is visible now."""
        self._observe("innereye_after_package", package=package)

    def after_registration(self, model: RegisteredModel, package: Package) -> None:
        """Tell all observers about a new version."""
        self._observe("innereye_after_registration", model=model, package=package)

    # --- how ---

    def _implementations(self, hook: str) -> list[tuple[str, Callable[..., Any]]]:
        implementations = getattr(self._manager.hook, hook).get_hookimpls()
        found = [(implementation.plugin_name, implementation.function) for implementation in implementations]
        return sorted(found, key=lambda item: (item[0] == CORE_PLUGIN, item[0]))

    def _providers(self, hook: str, protocol: type[P]) -> list[P]:
        return list(self._collected(hook, protocol).values())

    def _collected(self, hook: str, protocol: type[P]) -> dict[str, P]:
        if hook not in self._collections:
            self._collections[hook] = self._collect(hook, protocol)
        return self._collections[hook]

    def _collect(self, hook: str, protocol: type[P]) -> dict[str, P]:
        owners: dict[str, str] = {}
        collected: dict[str, P] = {}
        for plugin, implementation in self._implementations(hook):
            for offered in implementation() or ():
                provider: Any = offered() if inspect.isclass(offered) else offered
                missing = _missing_attributes(provider, protocol)
                if missing:
                    raise MissingPluginError(
                        f"plugin {plugin!r}: {hook} returned {type(provider).__name__} without {', '.join(missing)}; "
                        f"see innereye_core.contract.providers.{protocol.__name__}"
                    )
                name = provider.name
                if name in owners:
                    raise MissingPluginError(
                        f"{hook}: {name!r} is offered by the plugins {owners[name]!r} and {plugin!r}; "
                        f"block one with INNEREYE_DISABLED_PLUGINS"
                    )
                owners[name] = plugin
                collected[name] = provider
        return collected

    def _named(self, hook: str, protocol: type[P], name: str, what: str) -> P:
        providers = self._collected(hook, protocol)
        if (hook, name) in _DISTRIBUTIONS and name not in providers:
            raise MissingPluginError(f"{what} {name!r} is not installed: pip install {_DISTRIBUTIONS[hook, name]}")
        if name not in providers:
            raise UsageError(f"there is no {what} {name!r}; there are: {', '.join(sorted(providers)) or 'none'}")
        return providers[name]

    def _observe(self, hook: str, **arguments: object) -> None:
        """Call every observer; what has been published stands, so one that fails is logged and remembered."""
        for plugin, implementation in self._implementations(hook):
            accepted = inspect.signature(implementation).parameters
            try:
                implementation(**{key: value for key, value in arguments.items() if key in accepted})
            except Exception as error:
                _log.warning("plugin %r failed in %s: %s: %s", plugin, hook, type(error).__name__, error)
                self.failed_observers.append(f"{plugin}: {hook}")


def _missing_attributes(provider: object, protocol: type[Any]) -> list[str]:
    methods = {name for name in vars(protocol) if not name.startswith("_")}
    attributes = sorted(methods | set(inspect.get_annotations(protocol)))
    return [attribute for attribute in attributes if not hasattr(provider, attribute)]


@functools.cache
def installed_host() -> Host:
    """The host with the installed plugins, made once per process."""
    return Host()
