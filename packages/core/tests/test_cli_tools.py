"""env, config and plugins on the command line, and the commands that plugins add."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from innereye_core import __version__

Invoke = Callable[..., Any]
Install = Callable[..., str]

EVERY_KEY = Path(__file__).parent / "data" / "model_every_key.yaml"


def test_env_merge(innereye: Invoke, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("name: a\nchannels: [conda-forge]\ndependencies: [python>=3.11]\n")
    (tmp_path / "b.yml").write_text("name: b\ndependencies: [libjpeg, pip, {pip: [rich>=13]}]\n")

    merged = tmp_path / "new" / "environment.yml"
    outcome = innereye("env", "merge", tmp_path / "a.yml", tmp_path / "b.yml", "--output", merged).done()

    assert outcome.stdout == f"{merged}\n"
    lines = [line.strip(" -") for line in merged.read_text().splitlines()]
    assert {"name: b", "conda-forge", "python>=3.11", "libjpeg", "rich>=13"} <= set(lines)


def test_env_merge_takes_a_name(innereye: Invoke, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("name: a\ndependencies: [python]\n")
    innereye("env", "merge", tmp_path / "a.yml", "--name", "mine", "--output", tmp_path / "m.yml").done()
    assert "name: mine" in (tmp_path / "m.yml").read_text()


def test_env_merge_says_what_is_doubtful(innereye: Invoke, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("prefix: /home/me\ndependencies: [python]\n")
    outcome = innereye("env", "merge", tmp_path / "a.yml", "--output", tmp_path / "m.yml")
    assert outcome.exit_code == 0
    assert outcome.stderr.startswith("warning: ")
    assert "a.yml:1" in outcome.stderr


def test_env_merge_refuses_contradictions_and_writes_nothing(innereye: Invoke, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("dependencies: [numpy=1.21]\n")
    (tmp_path / "b.yml").write_text("dependencies: [numpy>=1.24]\n")

    outcome = innereye("env", "merge", tmp_path / "a.yml", tmp_path / "b.yml", "--output", tmp_path / "m.yml")

    outcome.refused(3, "a.yml:1", "b.yml:1", "numpy=1.21", "numpy>=1.24")
    assert not (tmp_path / "m.yml").exists()


def test_env_merge_does_not_replace_what_it_reads(innereye: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "a.yml"
    file.write_text("dependencies: [numpy]\n")
    innereye("env", "merge", file, "--output", file).refused(2, str(file))
    assert file.read_text() == "dependencies: [numpy]\n"


def test_env_merge_of_what_is_not_there(innereye: Invoke, tmp_path: Path) -> None:
    innereye("env", "merge", tmp_path / "a.yml", "--output", tmp_path / "m.yml").refused(3, "a.yml: no such file")


def test_config_check_of_a_model_yaml(innereye: Invoke) -> None:
    assert innereye("config", "check", EVERY_KEY).done().stdout == f"{EVERY_KEY}: Prostate, a valid model config\n"


def test_config_check_of_a_packaged_config(innereye: Invoke, packaged: Path) -> None:
    file = packaged / "model_inference_config.json"
    assert innereye("config", "check", file).done().stdout == f"{file}: Toy, a valid packaged config\n"


def test_config_check_of_a_file_of_innereye(innereye: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "model_inference_config.json"
    file.write_text(json.dumps({"model_name": "X", "checkpoint_paths": ["a.ckpt"], "model_configs_namespace": "n"}))
    assert (
        "X, written by InnerEye; the network's settings are not in it"
        in innereye("config", "check", file).done().stdout
    )


def test_config_check_refuses(innereye: Invoke, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(EVERY_KEY.read_text().replace("batch_size: 1", "batch_size: 0"))
    innereye("config", "check", tmp_path / "model.yaml").refused(3, "model.yaml:", "inference.batch_size: 0")


def test_config_check_looks_for_the_extra_code(innereye: Invoke, tmp_path: Path) -> None:
    text = EVERY_KEY.read_text().replace("extra_code_directory: null", "extra_code_directory: code")
    (tmp_path / "model.yaml").write_text(text)
    innereye("config", "check", tmp_path / "model.yaml").refused(3, "extra_code_directory", "code is no folder")


def test_config_schema_is_json_schema(innereye: Invoke) -> None:
    document = innereye("config", "schema").done().json
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "crop_size_zyx" in json.dumps(document)


def test_plugins_json(innereye: Invoke, toy: Path, install: Install) -> None:
    install("acme", "raise RuntimeError('imported')", allowed=False)
    found = {plugin["name"]: plugin for plugin in innereye("plugins", "--json").done().json}

    assert found["toy"] == {
        "name": "toy",
        "distribution": "toy-innereye",
        "version": "1.0",
        "hooks": [
            "innereye_checkpoint_formats",
            "innereye_evaluators",
            "innereye_runtimes",
            "innereye_scorers",
            "innereye_toolbox_sources",
        ],
        "blocked": False,
    }
    assert found["acme"] == {
        "name": "acme",
        "distribution": "acme-innereye",
        "version": "1.0",
        "hooks": [],
        "blocked": True,
    }


def test_plugins_as_a_table(innereye: Invoke, install: Install) -> None:
    install("acme", "raise RuntimeError('imported')", allowed=False)
    rows = {line.split()[0]: line.split() for line in innereye("plugins").done().stdout.splitlines()}
    assert rows["acme"] == ["acme", "acme-innereye", "1.0", "blocked"]
    assert rows["core"][1:3] == ["innereye-core", __version__]


def test_broken_plugin_is_named(innereye: Invoke, install: Install) -> None:
    install("acme", "import a_library_that_is_not_there")
    innereye("plugins").refused(
        6, "plugin 'acme' of acme-innereye cannot be imported", "INNEREYE_DISABLED_PLUGINS=acme"
    )


# --- commands of plugins ----------------------------------------------------------------------------------------------


def adding(name: str, import_path: str = "acme_innereye_plugin:hello") -> str:
    return f"""
        import click
        from innereye_core import hookimpl

        @click.command()
        @click.argument("who")
        def hello(who):
            click.echo(f"hello, {{who}}")

        @hookimpl
        def innereye_commands(commands):
            commands.add({name!r}, {import_path!r}, "Say hello.")
    """


def test_command_of_a_plugin(innereye: Invoke, install: Install) -> None:
    install("acme", adding("hello"))
    assert re.search(r"^  hello +Say hello\.$", innereye("--help").done().stdout, re.MULTILINE)
    assert innereye("hello", "you").done().stdout == "hello, you\n"


def test_command_is_imported_only_when_it_is_used(innereye: Invoke, install: Install) -> None:
    install("acme", adding("hello", "no_such_module:hello"))
    innereye("--help").done()
    innereye("hello", "you").refused(6, "command 'hello' cannot be imported from no_such_module:hello")


@pytest.mark.parametrize("path", ["acme_innereye_plugin:goodbye", "acme_innereye_plugin:innereye_commands"])
def test_command_that_is_none(innereye: Invoke, install: Install, path: str) -> None:
    install("acme", adding("hello", path))
    innereye("hello").refused(6, f"{path}")


def test_command_that_refuses(innereye: Invoke, install: Install) -> None:
    refusing = adding("hello").replace('click.echo(f"hello, {who}")', 'raise click.ClickException(f"not you, {who}")')
    install("acme", refusing)
    innereye("hello", "Bob").refused(1, "error: not you, Bob")


def test_command_with_a_name_of_core(innereye: Invoke, install: Install) -> None:
    install("acme", adding("deploy"))
    innereye("--help").refused(6, "'deploy'", "innereye_core.cli.deploy:deploy", "acme_innereye_plugin:hello")
