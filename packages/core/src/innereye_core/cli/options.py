"""Options that several commands share, so that each is spelt and explained in one place."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from innereye_core.deployment import SelectionOptions
from innereye_core.packaging.plan import DEFAULT_MERGER, DEFAULT_PACKAGER, PackageOptions
from innereye_core.registration import RegistrationOptions
from innereye_core.selecting import DEFAULT_POLICY

F = TypeVar("F", bound=Callable[..., Any])


def _epochs(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    texts = [text.strip() for text in value.split(",")]
    if not all(text.isascii() and text.isdigit() for text in texts):
        raise click.BadParameter(f"{value!r} is no list of epochs; write for example 100,120,140")
    return tuple(sorted({int(text) for text in texts}))


def _pairs(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in value:
        key, separator, content = text.partition("=")
        if not key or not separator:
            raise click.BadParameter(f"{text!r} must read KEY=VALUE")
        pairs[key] = content
    return pairs


def _seconds(ctx: click.Context, parameter: click.Parameter, value: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no duration; write for example 90s, 30m or 24h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _apply(function: F, *decorators: Callable[[F], F]) -> F:
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def json_option(function: F) -> F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)


def registry_option(function: F) -> F:
    """--registry."""
    return click.option(
        "--registry",
        metavar="NAME[:PLACE]",
        help="Registry (default: INNEREYE_REGISTRY, else the current run's, else local).",
    )(function)


def output_folder_option(help: str, required: bool = False) -> Callable[[F], F]:
    """--output DIR and --replace."""

    def add(function: F) -> F:
        return _apply(
            function,
            click.option(
                "--output",
                metavar="DIR",
                type=click.Path(path_type=Path, file_okay=False),
                required=required,
                help=help,
            ),
            click.option("--replace", is_flag=True, help="Replace an existing package."),
        )

    return add


def pairs_argument(name: str) -> Callable[[F], F]:
    """K=V… as arguments."""
    return click.argument(name, metavar="KEY=VALUE...", nargs=-1, required=True, callback=_pairs)


def selection_options(function: F) -> F:
    """How the epoch is selected."""
    return _apply(
        function,
        click.option("--epochs-to-test", metavar="1,2,3", callback=_epochs, help="The only epochs to consider."),
        click.option("--policy", metavar="NAME", default=DEFAULT_POLICY, show_default=True, help="Selection policy."),
        click.option(
            "--extra-code-directory",
            metavar="DIR",
            type=click.Path(path_type=Path),
            help="Folder with the network's own code (default: as the model config says).",
        ),
    )


def packaging_options(function: F) -> F:
    """How the package is made."""
    return _apply(
        function,
        click.option(
            "--environment",
            "environments",
            metavar="FILE",
            multiple=True,
            type=click.Path(path_type=Path),
            help="Conda environment file to merge last; may be repeated.",
        ),
        click.option(
            "--merge-strategy", metavar="NAME", default=DEFAULT_MERGER, show_default=True, help="Environment merger."
        ),
        click.option("--packager", metavar="NAME", default=DEFAULT_PACKAGER, show_default=True, help="Packager."),
        output_folder_option("Folder that shall hold the package (default: RUN)."),
        click.option("--ensemble", is_flag=True, help="Make the ensemble of the child runs 0, 1, …"),
        click.option("--allow-missing-folds", is_flag=True, help="Make it even where folds are missing."),
    )


def ensemble_timeout_option(function: F) -> F:
    """--ensemble-timeout."""
    return click.option(
        "--ensemble-timeout",
        "ensemble_timeout_seconds",
        metavar="TIME",
        default="24h",
        show_default=True,
        callback=_seconds,
        help="How long fold 0 waits for folds that run elsewhere (seconds, or 30m, 24h).",
    )(function)


def registration_options(function: F) -> F:
    """What the package is registered as."""
    return _apply(
        function,
        click.option("--name", metavar="NAME", help="Name of the model (default: as the model config says)."),
        click.option(
            "--tag", "tags", metavar="KEY=VALUE", multiple=True, callback=_pairs, help="Tag; may be repeated."
        ),
        click.option(
            "--property",
            "properties",
            metavar="KEY=VALUE",
            multiple=True,
            callback=_pairs,
            help="Property; may be repeated.",
        ),
        click.option("--description", metavar="TEXT", help="Description (default: the epoch and its Dice)."),
        registry_option,
    )


def take_selection(values: dict[str, Any]) -> SelectionOptions:
    """Take the values of :func:`selection_options` out of a command's arguments."""
    return SelectionOptions(values.pop("epochs_to_test"), values.pop("policy"), values.pop("extra_code_directory"))


def take_packaging(values: dict[str, Any]) -> PackageOptions:
    """Take the values of :func:`packaging_options` that say how a package is made."""
    return PackageOptions(
        environments=tuple(values.pop("environments")),
        merge_strategy=values.pop("merge_strategy"),
        packager=values.pop("packager"),
        replace=values.pop("replace"),
    )


def take_registration(values: dict[str, Any]) -> RegistrationOptions:
    """Take the values of :func:`registration_options`."""
    return RegistrationOptions(
        name=values.pop("name"),
        tags=values.pop("tags"),
        properties=values.pop("properties"),
        description=values.pop("description"),
        registry=values.pop("registry"),
    )
