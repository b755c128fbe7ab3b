"""The lazy command group: a subcommand is imported when it is used, and not for ``innereye --help``."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import click

from innereye_core import __version__
from innereye_core.cli.verbosity import verbosity_options
from innereye_core.errors import MissingPluginError


@dataclass(frozen=True)
class LazyCommand:
    """Where a subcommand lives, and what ``--help`` says about it."""

    import_path: str
    help: str


_COMMANDS = {
    "select": LazyCommand("innereye_core.cli.select:select", "Select the epoch of a run that is to be deployed."),
    "package": LazyCommand("innereye_core.cli.package:package", "Make the package final_model/ of a run."),
    "import": LazyCommand("innereye_core.cli.import_:import_", "Make packages of models that InnerEye packaged."),
    "register": LazyCommand("innereye_core.cli.register:register", "Register a package under a name and version."),
    "deploy": LazyCommand("innereye_core.cli.deploy:deploy", "Select, package and register a run."),
    "score": LazyCommand("innereye_core.cli.score:score", "Segment a patient's images with a model."),
    "export": LazyCommand("innereye_core.cli.export:export", "Copy a package and add its model in another form."),
    "models": LazyCommand("innereye_core.cli.models:models", "List, show, download, tag, verify and delete models."),
    "env": LazyCommand("innereye_core.cli.env:env", "Merge Conda environment files."),
    "config": LazyCommand("innereye_core.cli.config:config", "Check a model config, or print its JSON Schema."),
    "plugins": LazyCommand("innereye_core.cli.plugins:plugins", "List the installed plugins and their hooks."),
}


class PluginCommands:
    """Collects what plugins add (:class:`innereye_core.contract.providers.Commands`)."""

    def __init__(self) -> None:
        self.added: dict[str, LazyCommand] = {}

    def add(self, name: str, import_path: str, help: str) -> None:
        """Add a plugin's subcommand."""
        other = _COMMANDS.get(name) or self.added.get(name)
        if other is not None:
            raise MissingPluginError(
                f"command {name!r} is offered by {other.import_path} and {import_path}; "
                "block one of their plugins with INNEREYE_DISABLED_PLUGINS"
            )
        self.added[name] = LazyCommand(import_path, help)


class LazyGroup(click.Group):
    """A group whose subcommands are import paths; plugins add theirs through ``innereye_commands``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Core's commands in the order of a model's life, then those of plugins."""
        return [*_COMMANDS, *sorted(_plugin_commands())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand."""
        lazy = _COMMANDS.get(cmd_name) or _plugin_commands().get(cmd_name)
        if lazy is None:
            return None
        module, _, attribute = lazy.import_path.partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise MissingPluginError(
                f"command {cmd_name!r} cannot be imported from {lazy.import_path}: {error}; reinstall what it is from"
            ) from error
        if not isinstance(command, click.Command):
            raise MissingPluginError(f"{lazy.import_path} of command {cmd_name!r} is no click command; mend the plugin")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing any."""
        commands = {**_COMMANDS, **dict(sorted(_plugin_commands().items()))}
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in commands.items()])


def _plugin_commands() -> dict[str, LazyCommand]:
    from innereye_core.host import installed_host

    commands = PluginCommands()
    installed_host().commands(commands)
    return commands.added


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: innereye deploy runs/prostate && innereye score Prostate:latest ct.nii.gz",
)
@click.version_option(__version__, prog_name="innereye")
@verbosity_options
def innereye() -> None:
    """Take a trained segmentation model from its training run to patients' images."""
