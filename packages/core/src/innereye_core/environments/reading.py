"""Reads one Conda environment file into entries that know their lines, and refuses what conda would misread."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from innereye_core.environments.credentials import has_credentials
from innereye_core.environments.located import (
    CREDENTIAL_REMEDY,
    Entry,
    Place,
    one_line,
    read_text,
    refuse_credentials,
    shown,
)
from innereye_core.errors import InputError
from innereye_core.model import EnvironmentFile

_YAML_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {
    _YAML_TAG + kind for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
}
_KINDS = {"int": "a number", "float": "a number", "bool": "true or false", "null": "empty", "timestamp": "a date"}
_SECRET_NAME = re.compile(
    r"(?i)(?:^|_)(?:token|secret|passw(?:or)?d|pwd|credentials?|api_?key|access_?key|account_?key)(?:_|$)"
)


@dataclass(frozen=True)
class Environment:
    """The content of one environment file."""

    file: EnvironmentFile
    label: str
    """How messages name the file."""
    name: str | None = None
    channels: tuple[Entry, ...] = ()
    conda: tuple[Entry, ...] = ()
    pip: tuple[Entry, ...] = ()
    variables: Mapping[str, Entry] = field(default_factory=dict)
    """Name → value, the string exactly as it was written."""
    warnings: tuple[str, ...] = ()


def read_environment(file: EnvironmentFile) -> Environment:
    """Read and validate one environment file.

    Raises:
        InputError: the file cannot be read, is no plain YAML, or is no Conda environment; file and line are named.
    """
    label = one_line(file.label if file.label is not None else str(file.path))
    root = _compose(read_text(file.path, label), label)
    if root is None or _is_null(root):
        return Environment(file, label)
    return _Reader(file, label).environment(root)


def _compose(text: str, label: str) -> Node | None:
    """The nodes of the one YAML document, all with plain tags and without duplicate keys; None if it is empty."""
    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False  # an anchor may be defined anew: the later aliases mean the later one
    try:
        root: Node | None = yaml.compose(text)
        if root is not None:
            _check_nodes(root, label, set())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{label}:{mark.line + 1}" if mark is not None else label
        if error.context == "expected a single document in the stream":
            raise InputError(f"{place}: a second YAML document begins here; keep one environment per file") from None
        raise InputError(f"{place}: is not valid YAML ({shown(str(error.problem))}); correct this line") from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{label}:{line}: holds a control character; save the file as plain UTF-8 text") from None
    except (YAMLError, AssertionError) as error:  # ruamel asserts that %YAML names a version that it knows
        raise InputError(f"{label}: is not valid YAML ({shown(str(error))}); correct it") from None
    except RecursionError:
        raise InputError(f"{label}: is nested too deeply for an environment; flatten it") from None
    return root


def _check_nodes(node: Node, label: str, checked: set[int]) -> None:
    if id(node) in checked:
        return
    checked.add(id(node))
    place = _place(node, label)
    if node.tag not in _PLAIN_TAGS:
        tag = shown(str(node.tag).replace(_YAML_TAG, "!!"))
        raise InputError(f"{place}: the YAML tag {tag} is not allowed; an environment holds plain text, remove the tag")
    if isinstance(node, SequenceNode):
        for item in node.value:
            _check_nodes(item, label, checked)
    elif isinstance(node, MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            place = _place(key, label)
            if not isinstance(key, ScalarNode):
                raise InputError(f"{place}: a key is {_kind(key)}; write plain text before the colon")
            if key.value in lines:
                first = lines[key.value]
                raise InputError(f"{place}: {shown(key.value)!r} is there twice (first in line {first}); keep one")
            lines[key.value] = place.line
            _check_nodes(key, label, checked)
            _check_nodes(value, label, checked)


class _Reader:
    """Turns the nodes of one file into an :class:`Environment`."""

    def __init__(self, file: EnvironmentFile, label: str) -> None:
        self.file = file
        self.label = label

    def environment(self, root: Node) -> Environment:
        if not isinstance(root, MappingNode):
            raise InputError(
                f"{self._place(root)}: the file is {_kind(root)}; an environment is a mapping with keys such as"
                " channels: and dependencies:"
            )
        name: str | None = None
        channels: tuple[Entry, ...] = ()
        conda: tuple[Entry, ...] = ()
        pip: tuple[Entry, ...] = ()
        variables: Mapping[str, Entry] = {}
        warnings: list[str] = []
        for key, value in self._pairs(root):
            match key.value:
                case "name":
                    name = self._name(value)
                case "channels":
                    channels = tuple(self._string(item, "channel", "conda-forge") for item in self._items(key, value))
                case "dependencies":
                    conda, pip = self._dependencies(key, value)
                case "variables":
                    variables = self._variables(value)
                    warnings += [
                        f"{entry.place}: the variable {shown(variable)} looks like a secret; its value travels inside"
                        " the model package"
                        for variable, entry in variables.items()
                        if _SECRET_NAME.search(variable) and "$" not in entry.text and entry.text
                    ]
                case "prefix":
                    warnings.append(f"{self._place(key)}: prefix names a folder of one machine and is dropped")
                case other:
                    warnings.append(
                        f"{self._place(key)}: {shown(other)!r} is no key of a Conda environment and is dropped"
                    )
        return Environment(self.file, self.label, name, channels, conda, pip, variables, tuple(warnings))

    def _name(self, node: Node) -> str | None:
        if _is_null(node):
            return None
        if not isinstance(node, ScalarNode):
            raise InputError(f"{self._place(node)}: name is {_kind(node)}; write one word")
        entry = self._entry(node)
        problem = name_problem(entry.text)
        if problem:
            raise InputError(f"{entry.place}: {problem}")
        return entry.text

    def _dependencies(self, key: ScalarNode, node: Node) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
        conda: list[Entry] = []
        pip: list[Entry] = []
        for item in self._items(key, node):
            if not isinstance(item, MappingNode):
                conda.append(self._string(item, "dependency", "python=3.11"))
                continue
            for section, value in self._pairs(item):
                if section.value != "pip":
                    raise InputError(
                        f"{self._place(section)}: dependencies hold package names and a pip: list, not"
                        f" {shown(section.value)!r}; move its packages to one of the two"
                    )
                pip += [self._string(line, "pip requirement", "numpy==1.26.4") for line in self._items(section, value)]
        return tuple(conda), tuple(pip)

    def _variables(self, node: Node) -> Mapping[str, Entry]:
        if _is_null(node):
            return {}
        if not isinstance(node, MappingNode):
            raise InputError(f"{self._place(node)}: variables is {_kind(node)}; write lines such as NAME: value")
        variables: dict[str, Entry] = {}
        for key, value in self._pairs(node):
            variable = shown(key.value)
            if not re.fullmatch(r"[^\s=\x00-\x1f]+", key.value):
                raise InputError(
                    f"{self._place(key)}: {variable!r} is no name of a variable; use letters, digits and _"
                )
            if not isinstance(value, ScalarNode):
                raise InputError(f"{self._place(value)}: the variable {variable} is {_kind(value)}; write one value")
            if _is_null(value):
                raise InputError(f'{self._place(key)}: the variable {variable} is empty; write "" if that is meant')
            entry = Entry(self._text(value), self._place(value))
            if has_credentials(entry.text):
                raise InputError(f"{entry.place}: the variable {variable} holds a credential, and {CREDENTIAL_REMEDY}")
            variables[key.value] = entry
        return variables

    def _items(self, key: ScalarNode, node: Node) -> Sequence[Node]:
        if _is_null(node):
            return []
        if not isinstance(node, SequenceNode):
            raise InputError(f"{self._place(node)}: {key.value} is {_kind(node)}; write a list, one '- item' per line")
        items: Sequence[Node] = node.value
        return items

    def _string(self, node: Node, what: str, example: str) -> Entry:
        if not isinstance(node, ScalarNode) or node.tag not in (_YAML_TAG + "str", _YAML_TAG + "value"):
            written = f" {shown(node.value)}" if isinstance(node, ScalarNode) and node.value else ""
            raise InputError(
                f"{self._place(node)}: the {what}{written} is {_kind(node)}; write text, such as {example}"
            )
        if not node.value.strip():
            raise InputError(f"{self._place(node)}: the {what} is empty; remove it, or write text, such as {example}")
        return self._entry(node)

    def _entry(self, node: ScalarNode) -> Entry:
        entry = Entry(self._text(node).strip(), self._place(node))
        refuse_credentials(entry)
        return entry

    def _text(self, node: ScalarNode) -> str:
        """The string as it was written: ``010`` and ``yes`` are not interpreted."""
        text = str(node.value)
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(f"{self._place(node)}: holds a character that no text can have; remove the \\ escape")
        return text

    def _pairs(self, node: MappingNode, outer: tuple[int, ...] = ()) -> Iterator[tuple[ScalarNode, Node]]:
        """Keys and values, those of merge keys (``<<: *anchor``) after the mapping's own, each key once."""
        if id(node) in outer:
            raise InputError(f"{self._place(node)}: a merge key << refers to itself; write the keys out")
        merged: list[MappingNode] = []
        seen: set[str] = set()
        for key, value in node.value:
            if key.tag != _YAML_TAG + "merge":
                seen.add(key.value)
                yield key, value
                continue
            for source in value.value if isinstance(value, SequenceNode) else [value]:
                if not isinstance(source, MappingNode):
                    raise InputError(
                        f"{self._place(key)}: << merges mappings, not {_kind(source)}; name an anchor of one"
                    )
                merged.append(source)
        for source in merged:
            for key, value in self._pairs(source, (*outer, id(node))):
                if key.value not in seen:
                    seen.add(key.value)
                    yield key, value

    def _place(self, node: Node) -> Place:
        return _place(node, self.label)


def name_problem(name: str) -> str | None:
    """What is wrong with ``name`` as the name of an environment, and what to do; None if nothing is."""
    if re.search(r"[\s/\\:#\x00-\x1f]", name) or not name:
        return f"{shown(name)!r} is no name for an environment; use letters, digits, - and _"
    return None


def _place(node: Node, label: str) -> Place:
    return Place(label, node.start_mark.line + 1)


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.tag == _YAML_TAG + "null"


def _kind(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    return _KINDS.get(str(node.tag).removeprefix(_YAML_TAG), "a text")
