"""Writes a Conda environment so that every YAML reader sees the same strings, and equal input gives equal bytes."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from io import StringIO

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, SingleQuotedScalarString

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.+=<>!~,|*/:-]*(?<!:)")
"""Strings that need no quotes in YAML 1.1 and 1.2, but for the words below."""
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
"""Words that one of the two versions reads as something else than a string."""


def environment_text(
    merged_from: Sequence[str],
    name: str | None,
    channels: Sequence[str],
    conda: Sequence[str],
    pip: Sequence[str],
    variables: Mapping[str, str],
) -> str:
    """The content of environment.yml.

    Args:
        merged_from: names of the files that it was made from, for the comment in the first line.
        name: name of the environment, if it has one.
        channels: in descending priority.
        conda: conda dependencies.
        pip: lines for pip.
        variables: environment variables.
    """
    dependencies: list[object] = [_scalar(spec) for spec in conda]
    if pip:
        dependencies.append({"pip": [_scalar(line) for line in pip]})
    content: dict[str, object] = {}
    if name:
        content["name"] = _scalar(name)
    if channels:
        content["channels"] = [_scalar(channel) for channel in channels]
    if dependencies or not (content or variables):
        content["dependencies"] = dependencies
    if variables:
        content["variables"] = {_scalar(key): _quoted(value) for key, value in variables.items()}
    yaml = YAML()
    yaml.width = sys.maxsize
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = StringIO()
    stream.write(f"# Merged by innereye from: {', '.join(merged_from)}\n")
    yaml.dump(content, stream)
    return stream.getvalue()


def _scalar(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else _quoted(text)


def _quoted(text: str) -> str:
    # Between single quotes, line breaks of any alphabet would be folded; double quotes escape them.
    quoted: str = SingleQuotedScalarString(text) if text.isprintable() else DoubleQuotedScalarString(text)
    return quoted
