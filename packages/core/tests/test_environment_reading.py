"""Reading environment files: encodings, malformed YAML, wrong types, and values that stay as they were written."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from innereye_core.environments.reading import Environment, read_environment
from innereye_core.errors import InputError
from innereye_core.model import EnvironmentFile


def read(folder: Path, text: str | bytes) -> Environment:
    path = folder / "environment.yml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_environment(EnvironmentFile(path, 200, "environment.yml"))


def refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(InputError) as refused:
        read(folder, text)
    message = str(refused.value)
    assert "\n" not in message
    return message


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named_by_its_path_without_a_label(tmp_path: Path) -> None:
    missing = tmp_path / "environment.yml"
    with pytest.raises(InputError) as refused:
        read_environment(EnvironmentFile(missing, 200))
    assert str(refused.value) == f"{missing}: no such file; check the path"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^my folder: is a folder; name the file inside it$"):
        read_environment(EnvironmentFile(tmp_path, 200, "my folder"))


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("name: x")
    with pytest.raises(InputError, match=r"^x: cannot be read \(Not a directory\); check the path"):
        read_environment(EnvironmentFile(tmp_path / "file" / "environment.yml", 200, "x"))


def test_a_label_is_shown_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^two lines: no such file"):
        read_environment(EnvironmentFile(tmp_path / "missing", 200, "two\nlines"))


def test_byte_order_mark_and_crlf_are_fine(tmp_path: Path) -> None:
    environment = read(tmp_path, b"\xef\xbb\xbfname: x\r\ndependencies:\r\n  - numpy\r\n  - scipy\r\n")
    assert environment.name == "x"
    assert [(entry.text, entry.place.line) for entry in environment.conda] == [("numpy", 3), ("scipy", 4)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf_16_is_refused(tmp_path: Path, encoding: str) -> None:
    mark = b"" if encoding == "utf-16" else b"\xfe\xff"
    assert refusal(tmp_path, mark + "name: x\n".encode(encoding)).endswith("is encoded as UTF-16; save it as UTF-8")


def test_utf_16_without_a_mark_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "name: x\n".encode("utf-16-le")).startswith("environment.yml:1: holds a NUL character")


def test_latin_1_is_refused_with_the_line(tmp_path: Path) -> None:
    message = refusal(tmp_path, "name: x\n# Gerät\n".encode("latin-1"))
    assert message == "environment.yml:2: byte 0xe4 is not UTF-8; save the file as UTF-8"


def test_control_characters_are_refused_with_the_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, "name: x\nchannels: [a\x07b]\n").startswith("environment.yml:2: holds a control character")


# --- YAML -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: x\ndependencies:\n\t- numpy\n", 3),
        ("dependencies: [numpy\nname: x\n", 2),
        ("name: a: b\n", 1),
        ("dependencies:\n  - *unknown\n", 2),
        ("name: x\nname\n", 3),
        ('name: "\\q"\n', 1),
    ],
)
def test_malformed_yaml_is_refused_with_the_line(tmp_path: Path, text: str, line: int) -> None:
    assert refusal(tmp_path, text).startswith(f"environment.yml:{line}: is not valid YAML (")


@pytest.mark.parametrize("version", ["2.0", "1.10"])
def test_an_unknown_yaml_version_is_refused(tmp_path: Path, version: str) -> None:
    assert "is not valid YAML" in refusal(tmp_path, f"%YAML {version}\n---\nname: x\n")


@pytest.mark.parametrize("tag", ["!!python/name:os.system", "!!python/object/apply:os.system", "!mine", "!!binary"])
def test_tags_that_make_objects_are_refused(tmp_path: Path, tag: str) -> None:
    message = refusal(tmp_path, f"name: x\nunknown:\n  - {tag} value\n")
    assert message.startswith(f"environment.yml:3: the YAML tag {tag} is not allowed")


def test_several_documents_are_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, "name: a\n---\nname: b\n")
    assert message == "environment.yml:2: a second YAML document begins here; keep one environment per file"


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("variables:\n  A: 1\n  A: 2\n", 3, "A"),
        ("dependencies:\n  - pip: [a]\n    pip: [b]\n", 3, "pip"),
        ("unknown:\n  deep:\n    - k: 1\n      k: 2\n", 4, "k"),
    ],
)
def test_duplicate_keys_are_refused_at_every_depth(tmp_path: Path, text: str, line: int, key: str) -> None:
    assert refusal(tmp_path, text).startswith(
        f"environment.yml:{line}: '{key}' is there twice (first in line {line - 1})"
    )


def test_keys_that_are_no_text_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "[a, b]: c\n") == "environment.yml:1: a key is a list; write plain text before the colon"


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "name: " + "[" * 1000) == (
        "environment.yml: is nested too deeply for an environment; flatten it"
    )


def test_anchors_and_aliases_are_fine(tmp_path: Path) -> None:
    text = "channels: &c [conda-forge]\ndependencies:\n  - &n numpy\n  - pip:\n    - *n\nunknown: *c\n"
    environment = read(tmp_path, text)
    assert [entry.text for entry in environment.conda + environment.pip] == ["numpy", "numpy"]


def test_an_anchor_may_be_defined_anew(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        environment = read(tmp_path, "variables:\n  A: &v one\n  B: &v two\n  C: *v\n")
    assert {name: entry.text for name, entry in environment.variables.items()} == {"A": "one", "B": "two", "C": "two"}


def test_merge_keys_give_way_to_the_mapping_s_own_keys(tmp_path: Path) -> None:
    text = (
        "common:\n  - &first {A: first, B: first}\n  - &second {B: second, C: second}\n"
        "variables:\n  <<: [*first, *second]\n  A: own\n"
    )
    environment = read(tmp_path, text)
    assert {name: entry.text for name, entry in environment.variables.items()} == {
        "A": "own",
        "B": "first",
        "C": "second",
    }


def test_a_merge_key_that_names_no_mapping_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, "variables:\n  <<: text\n")
    assert message.startswith("environment.yml:2: << merges mappings, not a text")


def test_a_merge_key_that_refers_to_itself_is_refused(tmp_path: Path) -> None:
    assert "refers to itself" in refusal(tmp_path, "variables: &v\n  A: 1\n  <<: *v\n")


# --- content ----------------------------------------------------------------------------------------------------------


def test_variables_stay_the_strings_that_were_written(tmp_path: Path) -> None:
    written = {
        "A": "010",
        "B": "yes",
        "C": "1.10",
        "D": "0o17",
        "E": "1e3",
        "F": "12:30:45",
        "G": "2020-01-01",
        "H": "''",
    }
    text = "variables:\n" + "".join(f"  {name}: {value}\n" for name, value in written.items())
    environment = read(tmp_path, text)
    assert {name: entry.text for name, entry in environment.variables.items()} == {**written, "H": ""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("just text\n", "environment.yml:1: the file is a text; an environment is a mapping"),
        ("name: [x]\n", "environment.yml:1: name is a list; write one word"),
        ("name: a/b\n", "environment.yml:1: 'a/b' is no name for an environment"),
        ("channels:\n  - 3\n", "environment.yml:2: the channel 3 is a number; write text"),
        ("channels: {a: b}\n", "environment.yml:1: channels is a mapping; write a list"),
        ("dependencies: numpy\n", "environment.yml:1: dependencies is a text; write a list"),
        ("dependencies:\n  - pip: numpy\n", "environment.yml:2: pip is a text; write a list"),
        ("dependencies:\n  - pip:\n    - 3\n", "environment.yml:3: the pip requirement 3 is a number"),
        ("dependencies:\n  - pip:\n    - a: b\n", "environment.yml:3: the pip requirement is a mapping"),
        ("variables:\n  A:\n", 'environment.yml:2: the variable A is empty; write "" if that is meant'),
        ("variables:\n  A: [x]\n", "environment.yml:2: the variable A is a list; write one value"),
        ("variables:\n  A=B: x\n", "environment.yml:2: 'A=B' is no name of a variable"),
        ('variables:\n  A: "\\0"\n', "environment.yml:2: holds a character that no text can have"),
        ('name: "\\ud83d"\n', "environment.yml:1: holds a character that no text can have"),
    ],
)
def test_wrong_types_and_values_are_refused_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


def test_a_name_that_looks_like_a_number_stays_as_it_was_written(tmp_path: Path) -> None:
    assert read(tmp_path, "name: 010\n").name == "010"


def test_unknown_keys_are_dropped_with_a_warning(tmp_path: Path) -> None:
    assert read(tmp_path, "name: x\nplatforms: [linux-64]\n").warnings == (
        "environment.yml:2: 'platforms' is no key of a Conda environment and is dropped",
    )


def test_a_path_is_shown_in_full_however_long(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 200) / "environment.yml"
    with pytest.raises(InputError, match="x" * 200):
        read_environment(EnvironmentFile(long, 200))
