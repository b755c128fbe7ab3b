"""The reference pages say what is there, all of it, and nothing else."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import innereye_core
from innereye_core import errors, model
from innereye_core.builtin import local_registry
from innereye_core.cli.group import innereye
from innereye_core.config_files import model_config_schema
from innereye_core.contract import hookspecs, providers

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def sections(text: str, level: int) -> dict[str, str]:
    """Heading of that level → what follows it, up to the next heading of any level."""
    parts = re.split(r"^(#+) (.+)$", text, flags=re.MULTILINE)[1:]
    found = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    return {heading: body for marks, heading, body in found if len(marks) == level}


def table(text: str, first_column: str) -> list[dict[str, str]]:
    """The rows of every table with that first column, as column → cell."""
    found: list[dict[str, str]] = []
    for block in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE):
        header, _, *rows = [_cells(line) for line in block.splitlines()]
        if header[0] == first_column:
            found += [dict(zip(header, row, strict=True)) for row in rows]
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def code(cell: str) -> str:
    """A cell without the backticks around it."""
    return cell.strip("`")


# --- command line -----------------------------------------------------------------------------------------------------

ON_EVERY_COMMAND = {"--verbose", "--debug", "--help"}


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
        if parameter.is_flag:
            yield name, ""
        else:
            default = str(parameter.default) if parameter.show_default else ""
            value = re.sub(r"^\[(.*)\]$", r"\1", parameter.make_metavar(context))  # click's way to write a choice
            yield f"{name} {value}", "required" if parameter.required else default


def test_every_command_is_on_the_page_and_no_other():
    documented = [heading for heading in sections(page("cli.md"), 2) if heading.startswith("innereye ")]
    assert sorted(documented) == sorted(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS)
def test_command_has_the_documented_options_and_no_other(path):
    text, context = sections(page("cli.md"), 2)[path], COMMANDS[path]
    assert f"```\n{path} {' '.join(context.command.collect_usage_pieces(context))}\n```" in text
    actual = dict(options(context))
    assert actual.keys() >= ON_EVERY_COMMAND
    documented = {code(row["option"]): code(row["default"]) for row in table(text, "option")}
    assert documented == {name: default for name, default in actual.items() if name not in ON_EVERY_COMMAND}


@pytest.mark.parametrize("path", COMMANDS)
def test_help_of_every_command_ends_with_an_example(path):
    assert re.search(rf"Example: .*{path}", COMMANDS[path].command.epilog or "")


# --- model config -----------------------------------------------------------------------------------------------------


def config_keys(schema: dict[str, Any], definitions: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of the JSON Schema that a person may write, with its default; variants by the value that names them."""

    def defined(value: dict[str, Any]) -> dict[str, Any]:
        return definitions[value["$ref"].rpartition("/")[2]] if "$ref" in value else {}

    for name, value in schema["properties"].items():
        where = f"{path}{name}"
        for variant in map(defined, value.get("oneOf", ())):
            kind = variant["properties"]["method"]["const"]
            yield from ((f"{kind}: {key}", default) for key, default in config_keys(variant, definitions, f"{where}."))
        if "properties" in defined(value):
            yield from config_keys(defined(value), definitions, f"{where}.")
        elif name in schema.get("required", ()):
            if "properties" not in defined(value.get("items", {})):
                yield where, "required"
        elif "oneOf" not in value:
            yield where, value.get("default", {})
        if "properties" in defined(value.get("items", {})):
            yield from config_keys(defined(value["items"]), definitions, f"{where}[].")


def test_every_key_of_the_config_is_on_the_page_with_its_default_and_no_other():
    schema = model_config_schema()
    documented = {
        (f"{heading}: " if level == 3 else "") + code(row["key"]): yaml.safe_load(code(row["default"]))
        for level in (2, 3)
        for heading, text in sections(page("configuration.md"), level).items()
        for row in table(text, "key")
    }
    assert documented == dict(config_keys(schema, schema["$defs"]))


# --- hooks ------------------------------------------------------------------------------------------------------------

HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("innereye_")}
PROTOCOLS = [
    name for name, value in vars(providers).items() if inspect.isclass(value) and value.__module__ == providers.__name__
]


def included(text: str) -> list[str]:
    """What a page includes from docstrings."""
    return re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE)


def test_every_hook_is_on_the_page_and_no_other():
    documented = list(sections(page("hooks.md"), 3))
    assert sorted(documented) == sorted(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_hook_has_the_documented_signature(name):
    text = sections(page("hooks.md"), 3)[name]
    (signature,) = re.findall(r"```python\n(.+?)\n```", text, flags=re.DOTALL)
    (documented,) = ast.parse(f"{signature}: ...").body
    (actual,) = ast.parse(inspect.getsource(HOOKS[name])).body
    assert isinstance(documented, ast.FunctionDef)
    assert isinstance(actual, ast.FunctionDef)
    assert documented.name == actual.name
    assert ast.unparse(documented.args) == ast.unparse(actual.args)
    assert ast.unparse(documented.returns) == ast.unparse(actual.returns)


@pytest.mark.parametrize("name", HOOKS)
def test_hook_page_says_when_it_is_called_and_what_the_default_is(name):
    text = sections(page("hooks.md"), 3)[name]
    assert "\n**Called** " in text
    assert "\n**Default:** " in text


def test_every_provider_protocol_is_on_the_page():
    documented = [path for path in included(page("hooks.md")) if path.startswith(f"{providers.__name__}.")]
    assert sorted(documented) == sorted(f"{providers.__name__}.{name}" for name in PROTOCOLS)


@pytest.mark.parametrize("name", ["hooks.md", "python-api.md"])
def test_every_included_docstring_is_there(name):
    for path in included(page(name)):
        module, _, attribute = path.rpartition(".")
        assert inspect.getdoc(getattr(__import__(module, fromlist=[attribute]), attribute)), path


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_every_public_name_is_on_the_page_of_the_python_api():
    text = page("python-api.md")
    for name in innereye_core.__all__:
        assert re.search(rf"^::: innereye_core\.\S*\b{name}$|`innereye_core\.{name}`", text, flags=re.MULTILINE), name


def test_exit_codes_are_those_of_the_errors():
    documented = {code(row["exception"]): int(row["code"]) for row in table(page("exit-codes.md"), "code")}
    raised = [value for value in vars(errors).values() if inspect.isclass(value)]
    actual = {error.__name__: error.exit_code for error in raised if issubclass(error, errors.InnerEyeError)}
    assert documented == {"": 0, **actual}


FILES = {
    "manifest.json": {"schema_version", *(field.name for field in dataclasses.fields(model.Manifest))},
    "The local registry": {"schema_version", *(field.name for field in dataclasses.fields(local_registry._Record))},
}


@pytest.mark.parametrize("heading", FILES)
def test_keys_of_a_file_are_on_the_page(heading):
    text = page("files.md")
    section = {**sections(text, 2), **sections(text, 3)}[heading]
    assert {code(row["key"]) for row in table(section, "key")} == FILES[heading]
