"""What the pages tell a reader to type is accepted, and where they point to, something is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from innereye_core.cli.group import innereye
from innereye_core.config_files import read_model_config

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    """Page and content of every code block in that language; the language of a shell block is empty."""
    return [
        (page.relative_to(ROOT).as_posix(), content)
        for page in PAGES
        for found, content in BLOCK.findall(page.read_text(encoding="utf-8"))
        if found == language
    ]


def innereye_commands() -> list[tuple[str, list[str]]]:
    """Every line of a shell block that calls ``innereye``, as page and arguments."""
    commands = [
        (page, command)
        for page, content in blocks("")
        for line in content.splitlines()
        if "[OPTIONS]" not in line
        for command in re.split(r"&&|\||>", line)
    ]
    calls = [(page, re.match(r"\s*(?:\w+=\S*\s+)*innereye (.*)", command)) for page, command in commands]
    return [(page, shlex.split(call.group(1), comments=True)) for page, call in calls if call is not None]


@pytest.mark.parametrize(("page", "arguments"), innereye_commands())
def test_command_on_a_page_is_understood(page, arguments):
    command: click.Command = innereye
    context = click.Context(innereye, info_name="innereye")
    while isinstance(command, click.Group):
        name, *arguments = arguments
        subcommand = command.get_command(context, name)
        assert subcommand is not None, name
        command = subcommand
    command.make_context(command.name, list(arguments), parent=context)


def score_commands() -> list[tuple[str, list[str]]]:
    """Every line of a shell block that calls a package's score.py, as page and arguments."""
    lines = [(page, line) for page, content in blocks("") for line in content.splitlines()]
    words = [(page, shlex.split(line, comments=True)) for page, line in lines if line.startswith("python ")]
    return [(page, found[2:]) for page, found in words if found[1].endswith("final_model/score.py")]


@pytest.mark.parametrize(("page", "arguments"), score_commands())
def test_score_py_on_a_page_is_understood(page, arguments):
    from innereye_core.cli.score import score

    score.make_context("score.py", arguments)


def model_configs() -> list[tuple[str, str]]:
    """Every code block that is a whole model config."""
    return [(page, content) for page, content in blocks("yaml") if "schema_version" in yaml.safe_load(content)]


@pytest.mark.parametrize(("page", "content"), model_configs())
def test_model_config_on_a_page_is_valid(page, content, tmp_path):
    (tmp_path / "model.yaml").write_text(content, encoding="utf-8")
    read_model_config(tmp_path / "model.yaml")


def test_python_on_the_pages_compiles():
    for page, content in blocks("python"):
        is_signature = content.startswith("def innereye_") and ": ..." not in content
        is_included = content.startswith("--8<--")
        if not is_signature and not is_included:
            compile(content, page, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    for target in targets:
        if target and not target.startswith("https://"):
            assert (page.parent / target).is_file(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_included_files_are_there(page):
    included = re.compile(r'^--8<--(?: "(.+)"|\n(.+)\n--8<--)$', flags=re.MULTILINE)
    for names in included.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / "".join(names)).is_file(), names


def test_every_page_is_in_the_navigation():
    class Loader(yaml.SafeLoader):
        """mkdocs.yml has tags of its own."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: node.value)
    navigation = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"]
    listed = re.findall(r"[\w/-]+\.md", str(navigation))
    assert sorted(listed) == sorted(path.relative_to(ROOT / "docs").as_posix() for path in PAGES[:-1])
