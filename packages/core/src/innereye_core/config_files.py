"""Reads and writes model.yaml and model_inference_config.json; errors name file, line, key, value and remedy."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from innereye_core.config import STRICT, ByteValue, FolderPath, ModelConfig, as_plain
from innereye_core.config_rules import network_contradictions
from innereye_core.errors import InputError

MODEL_FILE = "model.yaml"
INFERENCE_CONFIG_FILE = "model_inference_config.json"

T = TypeVar("T")


@dataclass(frozen=True, config=STRICT)
class InnerEyeConfig:
    """A model_inference_config.json that InnerEye itself wrote, in either of its two schemas.

    It says which checkpoints there are, but not how to build the network: that came from InnerEye's Python classes.
    """

    model_name: str
    checkpoint_paths: Annotated[tuple[FolderPath, ...], Field(min_length=1)]
    model_configs_namespace: str
    structure_names: tuple[str, ...] | None = None
    colours: tuple[tuple[ByteValue, ByteValue, ByteValue], ...] | None = None
    fill_holes: tuple[bool, ...] | None = None


@dataclasses.dataclass(frozen=True)
class PackagedConfig:
    """What a package's model_inference_config.json says: the model config, and where the checkpoints are."""

    config: ModelConfig
    checkpoint_paths: tuple[str, ...]
    """Relative to the package, POSIX, one per member."""


@dataclass(frozen=True, config=STRICT)
class _InnerEyeKeys:
    """The keys that InnerEye's own tools read, beside the rest of the config."""

    structure_names: tuple[str, ...]
    colours: tuple[tuple[ByteValue, ByteValue, ByteValue], ...]
    fill_holes: tuple[bool, ...]
    checkpoint_paths: Annotated[tuple[FolderPath, ...], Field(min_length=1)]


def read_model_config(path: Path) -> ModelConfig:
    """Read a model.yaml.

    Raises:
        InputError: the file is missing, is no YAML mapping, has unknown or duplicate keys or impossible values.
    """
    data, lines = _load_yaml(path)
    return _model_config(data, path, lines)


def read_inference_config(path: Path) -> PackagedConfig | InnerEyeConfig:
    """Read a model_inference_config.json: ours, or one that InnerEye wrote.

    Raises:
        InputError: the file is missing, is no JSON object, has unknown or duplicate keys or impossible values.
    """
    data = read_json_object(path)
    if "schema_version" not in data and "model_configs_namespace" in data:
        return _validated(InnerEyeConfig, data, path, {})
    key_names = [field.name for field in dataclasses.fields(_InnerEyeKeys)]
    keys = _validated(_InnerEyeKeys, {name: data[name] for name in key_names if name in data}, path, {})
    config = _model_config({key: value for key, value in data.items() if key not in key_names}, path, {})
    for name, value in _innereye_keys(config, keys.checkpoint_paths).items():
        if as_plain(getattr(keys, name)) != value:
            raise InputError(f"{path}: {name}: {data[name]!r} contradicts structures ({value!r}); make them agree")
    return PackagedConfig(config, keys.checkpoint_paths)


def inference_config_bytes(config: ModelConfig, checkpoint_paths: Sequence[str]) -> bytes:
    """The content of model_inference_config.json for a package with these checkpoints."""
    document = {"model_name": config.model_name, **_innereye_keys(config, checkpoint_paths), **as_plain(config)}
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def model_config_schema() -> dict[str, Any]:
    """The JSON Schema of model.yaml, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **TypeAdapter(ModelConfig).json_schema(),
        "title": "InnerEye Deploy model config",
    }


def _innereye_keys(config: ModelConfig, checkpoint_paths: Sequence[str]) -> dict[str, Any]:
    return {
        "structure_names": list(config.structure_names),
        "colours": as_plain(config.colours),
        "fill_holes": [structure.fill_holes for structure in config.structures],
        "checkpoint_paths": list(checkpoint_paths),
    }


# --- from text to plain data ------------------------------------------------------------------------------------------

_Lines = Mapping[tuple[str | int, ...], int]
"""Line number (from 1) of each key and list item, by its path."""

_KEY_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _load_yaml(path: Path) -> tuple[dict[str, Any], _Lines]:
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    text = _read_text(path)
    lines: dict[tuple[str | int, ...], int] = {}
    try:
        _note_lines(YAML(typ="safe", pure=True).compose(text), path, (), lines)
        data = YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError as error:
        what = str(error.problem).partition(" with value")[0]
        raise InputError(f"{path}:{_line(error)}: {what}; keep one of the two") from None
    except MarkedYAMLError as error:
        what = " ".join(str(error.problem or error.context).split())
        raise InputError(f"{path}:{_line(error)}: is not valid YAML: {what}") from None
    except YAMLError as error:
        raise InputError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    except (ValueError, RecursionError) as error:  # a number without end, brackets without end
        raise InputError(f"{path}: is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: must hold keys and values, such as 'model_name: Prostate'")
    return data, lines


def _line(error: Any) -> int:
    mark = error.problem_mark or error.context_mark
    return int(mark.line) + 1 if mark is not None else 1


def _note_lines(node: Any, path: Path, place: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int]) -> None:
    """Note the line of every key and list item below a YAML node."""
    from ruamel.yaml.nodes import MappingNode, SequenceNode

    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            lines[*place, index] = item.start_mark.line + 1
            _note_lines(item, path, (*place, index), lines)
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag not in _KEY_TAGS:
                raise InputError(f"{path}:{line}: a key must be a text; put quotes around it")
            lines[*place, key.value] = line
            _note_lines(value, path, (*place, key.value), lines)


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
        InputError: the file is missing, is no JSON object, or has a duplicate key.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        repeated = next((key for key in keys if keys.count(key) > 1), None)
        if repeated is not None:
            raise InputError(f"{path}: duplicate key {repeated!r}; keep one of the two")
        return dict(pairs)

    try:
        data = json.loads(_read_text(path), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: is not valid JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number without end, brackets without end
        raise InputError(f"{path}: is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: must hold one JSON object")
    return data


# --- from plain data to dataclasses -----------------------------------------------------------------------------------


def _model_config(data: dict[str, Any], path: Path, lines: _Lines) -> ModelConfig:
    config = _validated(ModelConfig, data, path, lines)
    for contradiction in network_contradictions(config):
        place = _steps(contradiction.partition(": ")[0])
        where = f"{path}:{_line_of(place, lines)}" if lines else str(path)
        raise InputError(f"{where}: {contradiction}")
    return config


def _validated(kind: type[T], data: dict[str, Any], path: Path, lines: _Lines) -> T:
    try:
        # JSON mode, because strict Python mode would refuse a list where a tuple is meant.
        return TypeAdapter(kind).validate_json(json.dumps(data, default=str))  # str: the dates that YAML knows
    except ValidationError as error:
        _refuse(error, data, path, lines)


def _refuse(error: ValidationError, data: dict[str, Any], path: Path, lines: _Lines) -> NoReturn:
    found = error.errors(include_url=False)
    # A list with a bad item counts as too short as well, which would only confuse.
    inside = {problem["loc"][:length] for problem in found for length in range(len(problem["loc"]))}
    problems = [problem for problem in found if problem["type"] != "too_short" or problem["loc"] not in inside]
    # An unknown key explains more than what is missing because of it.
    problems.sort(key=lambda problem: problem["type"] != "unexpected_keyword_argument")
    problem = problems[0]
    place = _place(problem["loc"], data)
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):
        # A check across keys, which begins its message with the key at fault.
        key, _, problem["msg"] = str(problem["ctx"]["error"]).partition(": ")
        place = (*place, *_steps(key))
    where = f"{path}:{_line_of(place, lines)}" if lines else str(path)
    key = ".".join(map(str, place))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise InputError(f"{where}: {key + ': ' if key else ''}{_explain(problem, data, place)}{more}") from None


def _explain(problem: Any, data: dict[str, Any], place: tuple[str | int, ...]) -> str:
    kind, value = problem["type"], problem["input"]
    if kind == "unexpected_keyword_argument":
        known = _keys_beside(place)
        close = difflib.get_close_matches(str(place[-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "remove it; 'innereye config schema' lists all keys"
        return f"unknown key (value {repr(value)[:80]}); {hint}"
    if kind == "missing":
        return "is required; add it"
    if kind == "json_invalid":
        return f"holds something that cannot be read: {problem['ctx']['error']}"
    if kind == "value_error":
        return str(problem["msg"]) if isinstance(value, dict) else f"{value!r} {problem['ctx']['error']}"
    if kind == "union_tag_not_found":
        return f"{problem['ctx']['discriminator']} is required; add it"
    if kind == "union_tag_invalid":
        return f"{problem['ctx']['tag']!r} is unknown; use one of {problem['ctx']['expected_tags']}"
    message = problem["msg"].removeprefix("Input ")
    shown = repr(value) if not isinstance(value, (dict, list)) else json.dumps(value)
    return f"{shown[:80]} {message[0].lower()}{message[1:]}"


def _place(loc: tuple[str | int, ...], data: Any) -> tuple[str | int, ...]:
    """The path of the value in the file: pydantic's, without the tags of unions."""
    place: list[str | int] = []
    for position, step in enumerate(loc):
        inside = (isinstance(data, dict) and step in data) or (
            isinstance(data, list) and isinstance(step, int) and step < len(data)
        )
        if inside:
            place.append(step)
            data = data[step]
        elif position == len(loc) - 1:
            place.append(step)
    return tuple(place)


def _steps(key: str) -> tuple[str | int, ...]:
    """The path of a key that is written with dots."""
    return tuple(int(step) if step.isdigit() else step for step in key.split("."))


def _line_of(place: tuple[str | int, ...], lines: _Lines) -> int:
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


def _keys_beside(place: tuple[str | int, ...]) -> list[str]:
    """Every key of the config's dataclasses: close enough to recognise a misspelling."""
    schema = TypeAdapter(ModelConfig).json_schema()
    objects = [schema, *schema["$defs"].values()]
    names = {name for entry in objects for name in entry.get("properties", {})}
    return sorted(names - {str(place[-1])})
