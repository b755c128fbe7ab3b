"""Hook implementation of the demo plugin: the subcommand ``innereye demo``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from innereye_core.contract import hookimpl

if TYPE_CHECKING:
    from innereye_core.contract.providers import Commands


@hookimpl
def innereye_commands(commands: Commands) -> None:
    """Add ``innereye demo``."""
    commands.add("demo", "innereye_demo.cli:demo", "Train, deploy and score a model on a real brain MRI.")
