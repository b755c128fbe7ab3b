"""Core's own hook implementations; what they return is imported only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from innereye_core.contract.marker import hookimpl

if TYPE_CHECKING:
    from innereye_core.contract.providers import (
        EnvironmentMerger,
        Evaluator,
        Executor,
        Packager,
        Registry,
        RunSource,
        SelectionPolicy,
    )
    from innereye_core.model import ToolboxSource


@hookimpl
def innereye_run_sources() -> list[type[RunSource]]:
    """Runs in local folders."""
    from innereye_core.builtin.runs import LocalRuns

    return [LocalRuns]


@hookimpl
def innereye_evaluators() -> list[type[Evaluator]]:
    """Ready-made scores."""
    from innereye_core.builtin.metrics_csv import MetricsCsv

    return [MetricsCsv]


@hookimpl
def innereye_policies() -> list[type[SelectionPolicy]]:
    """best_validation_dice, last, epoch."""
    from innereye_core.builtin.policies import BestValidationDice, LastEpoch, NamedEpoch

    return [BestValidationDice, LastEpoch, NamedEpoch]


@hookimpl
def innereye_environment_mergers() -> list[type[EnvironmentMerger]]:
    """conda-merge."""
    from innereye_core.builtin.environments import CondaMerge

    return [CondaMerge]


@hookimpl
def innereye_toolbox_sources() -> list[ToolboxSource]:
    """Core itself."""
    from pathlib import Path

    import innereye_core
    from innereye_core.model import ToolboxSource

    return [
        ToolboxSource(
            section="Common",
            import_name="innereye_core",
            folder=Path(innereye_core.__file__).parent,
            distribution="innereye-core",
            version=innereye_core.__version__,
        )
    ]


@hookimpl
def innereye_packagers() -> list[type[Packager]]:
    """The layout of final_model/."""
    from innereye_core.builtin.packager import InnerEyePackager

    return [InnerEyePackager]


@hookimpl
def innereye_registries() -> list[type[Registry]]:
    """A folder on this machine."""
    from innereye_core.builtin.local_registry import LocalRegistry

    return [LocalRegistry]


@hookimpl
def innereye_executors() -> list[type[Executor]]:
    """Processes on this machine."""
    from innereye_core.builtin.executors import LocalExecutor

    return [LocalExecutor]
