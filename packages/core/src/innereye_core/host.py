"""The typed façade over the hooks: collects named providers, checks them, and picks the one that was asked for.

Nothing else in the project calls a hook.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from innereye_core.errors import InnerEyeError, MissingPluginError, UsageError
from innereye_core.plugins import CORE_PLUGIN, PluginModule, load_plugins

if TYPE_CHECKING:
    from innereye_core.contract import providers as contract
    from innereye_core.model import (
        EnvironmentFile,
        Package,
        PackagePlan,
        PlannedFile,
        RegisteredModel,
        Run,
        ToolboxSource,
    )

_log = logging.getLogger(__name__)

_PROTOCOLS = {
    "innereye_run_sources": "RunSource",
    "innereye_checkpoint_formats": "CheckpointFormat",
    "innereye_evaluators": "Evaluator",
    "innereye_policies": "SelectionPolicy",
    "innereye_environment_mergers": "EnvironmentMerger",
    "innereye_packagers": "Packager",
    "innereye_registries": "Registry",
    "innereye_scorers": "Scorer",
    "innereye_image_formats": "ImageFormat",
    "innereye_runtimes": "Runtime",
    "innereye_executors": "Executor",
    "innereye_exporters": "Exporter",
}
"""What the providers of each hook must offer: a Protocol of contract.providers, imported when there is one to check."""

DEFAULT_SCORER = "images"

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
        """What failed after something was published: plugins and hooks, tags of runs."""

    # --- named providers, in the order of plugin names, core's own last ---

    def run_sources(self) -> list[contract.RunSource]:
        """Ways to find and open training runs."""
        return self._providers("innereye_run_sources")

    def checkpoint_formats(self) -> list[contract.CheckpointFormat]:
        """Formats of checkpoint files."""
        return self._providers("innereye_checkpoint_formats")

    def evaluators(self) -> list[contract.Evaluator]:
        """Ways to score candidates, from the highest priority to the lowest."""
        found = self._providers("innereye_evaluators")
        return sorted(found, key=lambda evaluator: -evaluator.priority)

    def image_formats(self) -> list[contract.ImageFormat]:
        """Image file formats."""
        return self._providers("innereye_image_formats")

    def runtimes(self) -> list[contract.Runtime]:
        """Runtimes that evaluate networks."""
        return self._providers("innereye_runtimes")

    def registries(self) -> list[contract.Registry]:
        """Places where packages live."""
        return self._providers("innereye_registries")

    def exporters(self) -> list[contract.Exporter]:
        """Ways to add another form of the model to a package."""
        return self._providers("innereye_exporters")

    def policy(self, name: str) -> contract.SelectionPolicy:
        """The selection policy of this name."""
        found: contract.SelectionPolicy = self._named("innereye_policies", name, "selection policy")
        return found

    def environment_merger(self, name: str) -> contract.EnvironmentMerger:
        """The environment merger of this name."""
        found: contract.EnvironmentMerger = self._named("innereye_environment_mergers", name, "merge strategy")
        return found

    def packager(self, name: str) -> contract.Packager:
        """The packager of this name."""
        found: contract.Packager = self._named("innereye_packagers", name, "packager")
        return found

    def registry(self, name: str) -> contract.Registry:
        """The registry of this name, or ``NAME:PLACE`` for one of its places."""
        from innereye_core.contract.providers import PlacedRegistry

        name, _, place = name.partition(":")
        found: contract.Registry = self._named("innereye_registries", name, "registry")
        if not place:
            return found
        if not isinstance(found, PlacedRegistry):
            raise UsageError(f"registry {name!r} is in one place only; leave out {':' + place!r}")
        return found.at(place)

    def scorer(self) -> contract.Scorer:
        """The pipeline behind ``score``: ``images``, or the one that another plugin replaces it with, which is logged.

        Raises:
            MissingPluginError: none is installed.
            UsageError: several would replace it, and nobody said which.
        """
        scorers: list[contract.Scorer] = self._providers("innereye_scorers")
        if not scorers:
            raise MissingPluginError("scoring needs more packages: pip install innereye-imaging innereye-segmentation")
        replacements = [scorer for scorer in scorers if scorer.name != DEFAULT_SCORER]
        if len(replacements) > 1:
            names = " and ".join(repr(scorer.name) for scorer in replacements)
            raise UsageError(f"the scorers {names} both replace {DEFAULT_SCORER!r}; block one of their plugins")
        if replacements and len(scorers) > 1:
            _log.warning("scoring with %r instead of %r", replacements[0].name, DEFAULT_SCORER)
        return (replacements or scorers)[0]

    def executor(self, jobs: str) -> contract.Executor:
        """The executor that takes this value of ``--jobs``.

        Raises:
            MissingPluginError: it is one of innereye-dask's, which is not installed.
            UsageError: none takes it, or several do.
        """
        executors: list[contract.Executor] = self._providers("innereye_executors")
        able = [executor for executor in executors if executor.accepts(jobs)]
        if not able and (jobs == "dask" or "://" in jobs):
            raise MissingPluginError(f"--jobs {jobs} needs a plugin: pip install innereye-dask")
        if len(able) != 1:
            names = " and ".join(executor.name for executor in able) or "no executor"
            raise UsageError(f"--jobs {jobs!r} is accepted by {names}; give a number of processes, such as 2")
        return able[0]

    # --- hooks that add ---

    def environment_files(self, run: Run) -> list[EnvironmentFile]:
        """Conda files that plugins add, in the order in which they are merged."""
        added: list[EnvironmentFile] = [file for _, file in self._added("innereye_environment_files", run=run)]
        return sorted(added, key=lambda file: file.priority)

    def toolbox_sources(self) -> list[ToolboxSource]:
        """Import packages that travel inside every package, by section and name."""
        added: list[ToolboxSource] = [source for _, source in self._added("innereye_toolbox_sources")]
        return sorted(added, key=lambda source: (source.section, source.import_name))

    def package_files(self, plan: PackagePlan) -> list[PlannedFile]:
        """Extra files that plugins put into a package."""
        return [file for _, file in self._added("innereye_package_files", plan=plan, providers=self)]

    def commands(self, commands: contract.Commands) -> None:
        """Let plugins add their subcommands."""
        for plugin, implementation in self._implementations("innereye_commands"):
            self._call(plugin, "innereye_commands", implementation, commands=commands)

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

    def _call(self, plugin: str, hook: str, implementation: Callable[..., Any], **arguments: object) -> Any:
        """Call one implementation with those of the hook's arguments that it takes, as pluggy would."""
        try:
            accepted = inspect.signature(implementation).parameters
            return implementation(**{key: value for key, value in arguments.items() if key in accepted})
        except InnerEyeError:
            raise
        except Exception as error:
            raise MissingPluginError(
                f"plugin {plugin!r} failed in {hook}: {type(error).__name__}: {error}; "
                f"mend it, or block it with INNEREYE_DISABLED_PLUGINS"
            ) from error

    def _added(self, hook: str, **arguments: object) -> Iterator[tuple[str, Any]]:
        """What all implementations of a hook return, one after the other, each with the plugin that it is from."""
        for plugin, implementation in self._implementations(hook):
            returned = self._call(plugin, hook, implementation, **arguments)
            if returned is not None and not isinstance(returned, Iterable):
                raise MissingPluginError(f"plugin {plugin!r}: {hook} must return a list, not {returned!r}; mend it")
            yield from ((plugin, item) for item in returned or ())

    def _providers(self, hook: str) -> list[Any]:
        return list(self._collected(hook).values())

    def _collected(self, hook: str) -> dict[str, Any]:
        if hook not in self._collections:
            self._collections[hook] = self._collect(hook)
        return self._collections[hook]

    def _collect(self, hook: str) -> dict[str, Any]:
        from innereye_core.contract import providers as contract

        protocol = getattr(contract, _PROTOCOLS[hook])
        owners: dict[str, str] = {}
        collected: dict[str, Any] = {}
        for plugin, offered in self._added(hook):
            provider = self._call(plugin, hook, offered) if inspect.isclass(offered) else offered
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

    def _named(self, hook: str, name: str, what: str) -> Any:
        providers = self._collected(hook)
        if (hook, name) in _DISTRIBUTIONS and name not in providers:
            raise MissingPluginError(f"{what} {name!r} is not installed: pip install {_DISTRIBUTIONS[hook, name]}")
        if name not in providers:
            raise UsageError(f"there is no {what} {name!r}; there are: {', '.join(sorted(providers)) or 'none'}")
        return providers[name]

    def _observe(self, hook: str, **arguments: object) -> None:
        """Call every observer; what has been published stands, so one that fails is logged and remembered."""
        for plugin, implementation in self._implementations(hook):
            try:
                self._call(plugin, hook, implementation, **arguments)
            except InnerEyeError as error:
                _log.warning("%s", error)
                self.failed_observers.append(f"{plugin}: {hook}")


def _missing_attributes(provider: object, protocol: type[Any]) -> list[str]:
    methods = {name for name in vars(protocol) if not name.startswith("_")}
    attributes = sorted(methods | set(inspect.get_annotations(protocol)))
    return [attribute for attribute in attributes if not hasattr(provider, attribute)]


@functools.cache
def installed_host() -> Host:
    """The host with the installed plugins, made once per process."""
    return Host()
