"""Every command explains itself: an example, the options of the contract, JSON where it prints data."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import click
import pytest

from innereye_core import __version__
from innereye_core.cli.group import innereye as command

Invoke = Callable[..., Any]
Install = Callable[..., str]


def commands(group: click.Group = command, *before: str) -> list[tuple[str, ...]]:
    """Every command and group of core, by the words that call it."""
    context = click.Context(group)
    found: list[tuple[str, ...]] = [before]
    names = [name for name in group.list_commands(context) if before or name in CORE]
    for name in names:
        sub = group.get_command(context, name)
        found += commands(sub, *before, name) if isinstance(sub, click.Group) else [(*before, name)]
    return found


CORE = ("select", "package", "register", "deploy", "score", "models", "env", "config", "plugins")
ALL = [(), ("select",), ("package",), ("register",), ("deploy",), ("score",), ("plugins",)]
ALL += [("models",), *(("models", name) for name in ("list", "show", "download", "tag", "verify", "delete"))]
ALL += [("env",), ("env", "merge"), ("config",), ("config", "check"), ("config", "schema")]


def test_these_are_all_commands() -> None:
    assert sorted(commands()) == sorted(ALL)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_has_an_example_and_the_common_options(innereye: Invoke, words: tuple[str, ...]) -> None:
    outcome = innereye(*words, "--help").done()

    text = " ".join(outcome.stdout.split())
    assert "Example: " in text
    assert re.search(r"Example: (\w+=\w+ )?innereye " + " ".join(words), text)
    for option in ("--verbose", "--debug", "--help"):
        assert option in text


@pytest.mark.parametrize(
    "words",
    [
        ("select",),
        ("package",),
        ("register",),
        ("deploy",),
        ("score",),
        ("plugins",),
        ("models", "list"),
        ("models", "show"),
    ],
    ids=" ".join,
)
def test_commands_that_print_data_have_json(innereye: Invoke, words: tuple[str, ...]) -> None:
    assert "--json" in innereye(*words, "--help").stdout


@pytest.mark.parametrize(
    "words",
    [("register",), ("deploy",), ("score",), *(words for words in ALL if words[:1] == ("models",) and len(words) > 1)],
    ids=" ".join,
)
def test_commands_that_use_a_registry_have_the_option(innereye: Invoke, words: tuple[str, ...]) -> None:
    assert "--registry NAME" in innereye(*words, "--help").stdout


OPTIONS_OF_THE_CONTRACT = {
    ("select",): "--epochs-to-test --policy --json",
    ("package",): "--epochs-to-test --policy --environment --merge-strategy --extra-code-directory --packager --output "
    "--replace --ensemble --allow-missing-folds",
    ("register",): "--name --tag --property --description",
    ("deploy",): "--epochs-to-test --policy --environment --merge-strategy --extra-code-directory --packager --output "
    "--replace --ensemble --allow-missing-folds --name --tag --property --description",
    ("score",): "--output --overwrite --device --runtime --posteriors --data_folder --model_folder --image_files "
    "--result_image_name --use_gpu --use_dicom --result_zip_dicom_name --model_id",
    ("models", "download"): "--output --replace",
    ("env", "merge"): "--output",
}


@pytest.mark.parametrize("words", OPTIONS_OF_THE_CONTRACT, ids=" ".join)
def test_options_of_the_contract(innereye: Invoke, words: tuple[str, ...]) -> None:
    found = set(re.findall(r"--\w[\w-]*", innereye(*words, "--help").stdout))
    assert set(OPTIONS_OF_THE_CONTRACT[words].split()) <= found


@pytest.mark.parametrize("words", [(), ("models",), ("env",), ("config",)], ids=" ".join)
def test_group_without_a_command_shows_its_help_and_is_wrong_usage(innereye: Invoke, words: tuple[str, ...]) -> None:
    outcome = innereye(*words)
    assert outcome.exit_code == 2
    assert "Commands:\n" in outcome.stderr


def test_version(innereye: Invoke) -> None:
    assert innereye("--version").done().stdout == f"innereye, version {__version__}\n"


def test_module_does_the_same_as_the_script(process: Invoke) -> None:
    outcome = process(sys.executable, "-m", "innereye_core", "--version")
    assert outcome.stdout == f"innereye, version {__version__}\n"
