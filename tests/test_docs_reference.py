"""The reference pages say what is there, all of it, and nothing else."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import innereye_core
import pytest
import yaml
from innereye_core import errors, model
from innereye_core.builtin.runs import LocalRuns
from innereye_core.cli.group import innereye
from innereye_core.config_files import model_config_schema
from innereye_core.contract import hookspecs, providers

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
ON_EVERY_COMMAND = {"--verbose", "--debug", "--help"}


def sections(page: str, level: int) -> dict[str, str]:
    """Heading → what follows it, up to the next heading of any level."""
    parts = re.split(r"^(#+) (.+)$", (REFERENCE / page).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    return {heading: text for marks, heading, text in found if len(marks) == level}


def rows(text: str) -> list[list[str]]:
    """The cells of all tables, without header lines and without the backticks around a whole cell."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    below_headers = [line for i, line in enumerate(lines) if "---" not in line and "---" not in "".join(lines[i + 1 : i + 2])]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in below_headers]
    return [[cell.strip().replace("\\|", "|") for cell in line] for line in cells]


def code(cell: str) -> str:
    """What a cell has between its first two backticks."""
    match = re.match(r"`([^`]+)`", cell)
    return match.group(1) if match else cell


# --- command line -----------------------------------------------------------------------------------------------------


def commands(group: click.Group, path: str, parent: click.Context | None = None) -> Iterator[tuple[str, click.Context]]:
    """Every command that can be run, by the words that call it."""
    context = click.Context(group, info_name=path, parent=parent)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}", context)
        else:
            yield f"{path} {name}", click.Context(command, info_name=name, parent=context)


COMMANDS = dict(commands(innereye, "innereye"))


def options(context: click.Context) -> Iterator[tuple[str, str]]:
    """Each option as ``--help`` shows it, with the default that it shows."""
    for parameter in context.command.get_params(context):
        if not isinstance(parameter, click.Option):
            continue
        name = max(parameter.opts, key=len)
        if not parameter.is_flag:
            name += f" {parameter.make_metavar(context).strip('[]')}"
        shown = "required" if parameter.required else str(parameter.default) if parameter.show_default else ""
        yield name, "" if parameter.is_flag else shown


def test_every_command_is_on_the_page_and_no_other():
    documented = [heading for heading in sections("cli.md", 2) if heading.startswith("innereye ")]
    assert sorted(documented) == sorted(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS)
def test_command_has_the_documented_options_and_no_other(path):
    text, context = sections("cli.md", 2)[path], COMMANDS[path]
    assert f"```\n{path} {' '.join(context.command.collect_usage_pieces(context))}\n```" in text
    actual = dict(options(context))
    assert ON_EVERY_COMMAND <= actual.keys()
    documented = [(code(name), code(default)) for name, default, _ in rows(text)]
    assert sorted(documented) == sorted(item for item in actual.items() if item[0] not in ON_EVERY_COMMAND)


@pytest.mark.parametrize("path", COMMANDS)
def test_command_has_help_with_an_example(path):
    context = COMMANDS[path]
    assert context.command.help
    assert f"Example: {path.split()[0]}" in (context.command.epilog or "") or path in (context.command.epilog or "")


# --- model config -----------------------------------------------------------------------------------------------------


def config_keys(schema: dict[str, Any], definitions: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of the JSON Schema that a person may write, with its default."""
    for name, given in schema["properties"].items():
        value = given
        if "$ref" in value:
            value = {**definitions[value["$ref"].rpartition("/")[2]], **value}
        where = f"{path}{name}"
        if "oneOf" in value:
            for variant in value["oneOf"]:
                method = definitions[variant["$ref"].rpartition("/")[2]]
                kind = method["properties"]["method"]["const"]
                yield from ((f"{kind}: {key}", default) for key, default in config_keys(method, definitions, f"{where}."))
            continue
        if "properties" in value:
            yield from config_keys(value, definitions, f"{where}.")
            continue
        item = value.get("items", {})
        is_table = "$ref" in item
        if not is_table or name not in schema.get("required", ()):
            empty = {"default": {}} if value.get("type") == "object" else {}
            yield where, "required" if name in schema.get("required", ()) else {**empty, **value}["default"]
        if is_table:
            yield from config_keys(definitions[item["$ref"].rpartition("/")[2]], definitions, f"{where}[].")


def test_every_key_of_the_config_is_on_the_page_with_its_default_and_no_other():
    schema = model_config_schema()
    documented = []
    for level in (2, 3):
        for heading, text in sections("configuration.md", level).items():
            for key, default, *_ in (row for row in rows(text) if len(row) == 3 and "." in row[0] or level == 2):
                if key == "`average`" or not key.startswith("`") or not (default.startswith("`") or default == "required"):
                    continue
                prefix = f"{heading}: " if level == 3 else ""
                documented.append((prefix + code(key), yaml.safe_load(code(default))))
    assert sorted(documented, key=str) == sorted(config_keys(schema, schema["$defs"]), key=str)
