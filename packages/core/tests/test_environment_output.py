"""The merged file: the same strings for every YAML reader, equal bytes for equal input, no path of this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml as yaml_1_1
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from innereye_core.builtin.environments import CondaMerge
from innereye_core.environments.writing import environment_text
from innereye_core.errors import InputError
from innereye_core.model import EnvironmentFile, MergedEnvironment


def merge(folder: Path, *texts: str, **options: Any) -> MergedEnvironment:
    files = []
    for letter, text in zip("abcdef", texts, strict=False):
        path = folder / f"{letter}.yml"
        path.write_text(text, encoding="utf-8")
        files.append(EnvironmentFile(path, 400))
    return CondaMerge().merge(files, **options)


def read_by_both(text: str) -> Any:
    """What YAML 1.1 and YAML 1.2 readers read, which must be the same."""
    content = YAML(typ="safe", pure=True).load(text)
    assert yaml_1_1.safe_load(text) == content
    return content


AWKWARD = [
    "010",
    "0o17",
    "0x1F",
    "yes",
    "No",
    "on",
    "y",
    "~",
    "null",
    "Null",
    "1_000",
    "1e3",
    "1.10",
    ".inf",
    "12:30:45",
]
AWKWARD += [
    "2020-01-01",
    "=",
    "<<",
    "",
    " x ",
    "a: b",
    "a #b",
    "- x",
    "'",
    '"',
    "it's",
    "#",
    "&a",
    "*a",
    "!x",
    "%x",
    "@x",
]
AWKWARD += [
    "a:",
    "x\ty",
    "two\nlines",
    "ü→😀",
    "\x07\x85\u2028",
    "x" * 300 + " y",
    "\\",
    "[",
    "{a}",
    "|",
    ">",
    "?",
    "true",
]


@pytest.mark.parametrize("text", AWKWARD)
def test_every_string_is_read_as_it_was_written(text: str) -> None:
    written = environment_text(["a.yml"], text, [text], [text], [text], {"NAME": text})
    content = read_by_both(written)
    assert content.get("name", "") == text
    assert content["channels"] == [text]
    assert content["dependencies"] == [text, {"pip": [text]}]
    assert content["variables"] == {"NAME": text}


@settings(derandomize=True, database=None, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_any_string_is_read_as_it_was_written(text: str) -> None:
    content = read_by_both(environment_text(["a.yml"], None, [text], [], [], {"NAME": text}))
    assert content == {"channels": [text], "variables": {"NAME": text}}


def test_variables_keep_their_strings_through_a_merge(tmp_path: Path) -> None:
    text = "variables:\n  A: 010\n  B: yes\n  yes: 1.10\n  C: |\n    two\n    lines\n"
    content = read_by_both(merge(tmp_path, text).text)
    assert content["variables"] == {"A": "010", "B": "yes", "yes": "1.10", "C": "two\nlines\n"}


def test_equal_input_gives_equal_bytes_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(
        "dependencies: [b, a, pip: ['x[q,p,o]>=1,!=1.5', 'x[r]<3', y]]\nvariables: {B: b, A: a}\nchannels: [d, c]\n"
    )
    script = (
        "import sys; from pathlib import Path; from innereye_core.builtin.environments import CondaMerge;"
        "from innereye_core.model import EnvironmentFile;"
        "sys.stdout.write(CondaMerge().merge([EnvironmentFile(Path(sys.argv[1]), 200)]).text)"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "a.yml")],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1
    assert "x[o,p,q,r]!=1.5,>=1,<3" in texts.pop()


def test_the_first_line_says_what_was_merged_without_folders(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("name: x")
    files = [
        EnvironmentFile(tmp_path / "a.yml", 100, "toolbox"),
        EnvironmentFile(tmp_path / "a.yml", 200),
        EnvironmentFile(tmp_path / "a.yml", 400, str(tmp_path / "a.yml")),
    ]
    text = CondaMerge().merge(files).text
    assert text.splitlines()[0] == "# Merged by innereye from: toolbox, a.yml, a.yml"
    assert str(tmp_path) not in text


def test_files_are_merged_in_the_order_given(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("name: a")
    (tmp_path / "b.yml").write_text("name: b")
    files = [EnvironmentFile(tmp_path / "b.yml", 400), EnvironmentFile(tmp_path / "a.yml", 100)]
    assert "name: a\n" in CondaMerge().merge(files).text


def test_a_name_that_no_environment_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'a b' is no name for an environment"):
        merge(tmp_path, "name: x", name="a b")


def test_at_least_one_file_is_needed() -> None:
    with pytest.raises(InputError, match="no environment file was given"):
        CondaMerge().merge([])


def test_specs_that_are_not_understood_are_kept_with_a_warning(tmp_path: Path) -> None:
    merged = merge(tmp_path, "dependencies:\n  - numpy (>=1)|3\n  - numpy=1.21\n")
    assert read_by_both(merged.text)["dependencies"] == ["numpy (>=1)|3", "numpy=1.21"]
    assert merged.warnings == (
        f"{tmp_path / 'a.yml'}:2: numpy (>=1)|3 is not understood; it is kept, and not compared with other files",
    )


def test_specs_of_different_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"conda-forge::numpy contradicts pytorch::numpy .* they name different channels"
    ):
        merge(tmp_path, "dependencies: ['conda-forge::numpy']", "dependencies: ['pytorch::numpy']")


def test_channels_that_are_folders_are_a_warning(tmp_path: Path) -> None:
    (warning,) = merge(tmp_path, "channels: [conda-forge, file:///mnt/channel]").warnings
    assert "the channel file:///mnt/channel is a folder of this machine" in warning


def test_defaults_against_nodefaults_is_a_warning(tmp_path: Path) -> None:
    (warning,) = merge(tmp_path, "channels: [conda-forge, nodefaults]", "channels: [defaults]").warnings
    assert warning.endswith(f"the channel defaults is used although {tmp_path / 'a.yml'}:1 says nodefaults")


def test_importing_the_merger_imports_none_of_what_merging_needs() -> None:
    script = (
        "import sys, innereye_core.builtin.environments;"
        "print(sorted({'conda_merge', 'yaml', 'ruamel', 'ruamel.yaml', 'packaging', 'pydantic'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
