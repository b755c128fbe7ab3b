"""Hook implementations of the AzureML plugin; what they return is imported only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from innereye_core.contract import hookimpl

if TYPE_CHECKING:
    from innereye_azureml.registry import AzureMLRegistry
    from innereye_azureml.runs import AzureMLRuns
    from innereye_core.contract.providers import Commands
    from innereye_core.model import ToolboxSource


@hookimpl
def innereye_run_sources() -> list[type[AzureMLRuns]]:
    """The AzureML run that this process is the job of."""
    from innereye_azureml.runs import AzureMLRuns

    return [AzureMLRuns]


@hookimpl
def innereye_registries() -> list[type[AzureMLRegistry]]:
    """The models of an AzureML workspace."""
    from innereye_azureml.registry import AzureMLRegistry

    return [AzureMLRegistry]


@hookimpl
def innereye_toolbox_sources() -> list[ToolboxSource]:
    """This package, as a record of what deployed the model; scoring does not need it."""
    from pathlib import Path

    from innereye_azureml import __version__
    from innereye_core.model import ToolboxSource

    return [
        ToolboxSource(
            section="Azure",
            import_name="innereye_azureml",
            folder=Path(__file__).parent,
            distribution="innereye-azureml",
            version=__version__,
            needed_to_score=False,
        )
    ]


@hookimpl
def innereye_commands(commands: Commands) -> None:
    """Add ``innereye azureml``."""
    commands.add(
        "azureml", "innereye_azureml.commands:azureml", "Score as an AzureML job; register a model's environment."
    )
