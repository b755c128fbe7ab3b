"""Turns the pip sections of an environment file into single lines: files inlined, paths checked, options set apart."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from innereye_core.environments.located import Entry, Place, one_line, read_text, refuse_credentials, shown
from innereye_core.environments.reading import Environment
from innereye_core.errors import InputError

_LONG_NAMES = {
    "-r": "--requirement",
    "-c": "--constraint",
    "-e": "--editable",
    "-f": "--find-links",
    "-i": "--index-url",
}
_WITH_PATHS = {"--requirement", "--constraint", "--editable", "--find-links"}
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_WEB = re.compile(r"(?i)(?:https?|ftp)://")
_LOCAL_PATH = re.compile(
    r"""(?ix) (?: [./\\~] | [a-z]:[\\/] | file: ) .*            # ./code, /code, ~/code, C:\code, file:code
            | [^@:;\s]* [/\\] [^@:;\s]*                          # some/code
            | [^@:;\s]+ \. (?: whl | zip | tar\.gz | tar\.bz2 | tgz ) (?: \[.*\] )?"""
)


@dataclass(frozen=True)
class PipLines:
    """What the pip sections of one environment file ask for."""

    options: tuple[Entry, ...]
    """Options such as ``--extra-index-url``, in their order."""
    requirements: tuple[Entry, ...]
    packaged: tuple[Entry, ...]
    """Requirements that are paths of code in the package, as they read there."""
    warnings: tuple[str, ...]


def pip_lines(environment: Environment, extra_code: Path | None) -> PipLines:
    """Take the pip entries of an environment apart, and put the content of ``-r`` files in their place.

    As pip does when conda calls it, paths count from the environment file's folder, and those in a ``-r`` line from the
    folder of the file that has the line.

    Args:
        environment: the environment file.
        extra_code: folder that travels in the package; paths of packages must lie in it.

    Raises:
        InputError: a requirements file is missing, includes itself or is remote; a path points to what does not travel.
    """
    collector = _Collector(environment, extra_code)
    collector.add(environment.pip, environment.file.path.parent, ())
    return PipLines(
        tuple(collector.options), tuple(collector.requirements), tuple(collector.packaged), tuple(collector.warnings)
    )


def merge_options(files: Sequence[Sequence[Entry]]) -> tuple[list[str], list[str]]:
    """Unite the options of several files, in their order and each once.

    Returns:
        The option lines, and warnings.
    """
    options: dict[tuple[str, ...], Entry] = {}
    warnings: list[str] = []
    index: Entry | None = None
    for line in (line for lines in files for line in lines):
        words = tuple(_words(line))
        if words in options:
            continue
        options[words] = line
        if words[0] == "--index-url":
            if index is not None:
                warnings.append(f"{line.place}: {line} replaces {index} ({index.place}); pip uses the last one")
            index = line
    return [line.text for line in options.values()], warnings


def _words(line: Entry) -> list[str]:
    """The option by its long name, and its values.

    Raises:
        InputError: the quotes do not match.
    """
    try:
        words = shlex.split(line.text)
    except ValueError as error:
        raise InputError(f"{line.place}: {line} cannot be read ({error}); correct the quotes") from None
    option, equals, value = words[0].partition("=")
    if not option.startswith("--"):
        option, equals, value = words[0][:2], "", words[0][2:]
    return [_LONG_NAMES.get(option, option), *([value] if value or equals else []), *words[1:]]


def _logical_lines(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Lines as pip sees them: joined at a backslash, without comments, not empty."""
    started: Entry | None = None
    for entry in entries:
        for line in entry.text.splitlines() or [""]:
            if started is not None and re.match(r"\s*#", line):
                line = ""  # a comment ends what a backslash had continued
            start = started or Entry("", entry.place)
            joined = Entry(start.text + line, start.place)
            if line.endswith("\\"):
                started = Entry(joined.text[:-1], joined.place)
                continue
            started = None
            text = _COMMENT.sub("", joined.text).strip()
            if text:
                yield Entry(text, joined.place)
    if started is not None and started.text.strip():
        yield Entry(started.text.strip(), started.place)


class _Collector:
    def __init__(self, environment: Environment, extra_code: Path | None) -> None:
        self.file = environment.file
        self.folder = environment.file.path.parent
        self.extra_code = extra_code
        self.options: list[Entry] = []
        self.requirements: list[Entry] = []
        self.packaged: list[Entry] = []
        self.warnings: list[str] = []
        self.inlined: set[Path] = set()

    def add(self, entries: Iterable[Entry], folder: Path, including: tuple[Path, ...]) -> None:
        for line in _logical_lines(entries):
            refuse_credentials(line)
            if line.text.startswith("-"):
                self._add_option(line, folder, including)
            elif _LOCAL_PATH.fullmatch(line.text):
                self.packaged.append(self._packaged(line, line.text))
            else:
                self.requirements.append(line)

    def _add_option(self, line: Entry, folder: Path, including: tuple[Path, ...]) -> None:
        option, *values = _words(line)
        more = [word for word in values if word.partition("=")[0] in _WITH_PATHS | _LONG_NAMES.keys()]
        if option not in _WITH_PATHS:
            if more:
                raise InputError(
                    f"{line.place}: {line} has several options; write {shown(more[0])} on a line of its own"
                )
            self.options.append(line)
            return
        if len(values) != 1:
            raise InputError(f"{line.place}: {line} must name one file or address; write one per line")
        value = values[0]
        if option == "--requirement":
            self._inline(line, value, folder, including)
        elif option == "--editable":
            editable = self._packaged(line, value)
            quoted = shlex.quote(editable.text) if re.search(r"[\s'\"\\]", editable.text) else editable.text
            self.packaged.append(Entry(f"-e {quoted}", line.place))
            self.warnings.append(
                f"{line.place}: installing {line} writes files beside the packaged code, which counts as a change to"
                " the package; name the packages that it needs instead"
            )
        elif _WEB.match(value):
            self.options.append(line)
        else:
            raise InputError(
                f"{line.place}: {line} names a file on this machine, which does not travel with the model; write the"
                " versions into the requirements, or give a web address"
            )

    def _inline(self, line: Entry, written: str, folder: Path, including: tuple[Path, ...]) -> None:
        if "://" in written:
            raise InputError(f"{line.place}: {line} is not on this machine; copy the file beside this one and name it")
        path = folder / written
        label = one_line(str(path) if self.file.label is None else written)
        try:
            text = read_text(path, label)
        except InputError as error:
            raise InputError(f"{line.place}: {line}: {error}") from None
        identity = path.resolve()
        if identity in including:
            raise InputError(f"{line.place}: {line} includes itself; remove one of the -r lines")
        if identity not in self.inlined:
            self.inlined.add(identity)
            entries = [
                Entry(content, Place(label, number)) for number, content in enumerate(text.splitlines(), start=1)
            ]
            self.add(entries, path.parent, (*including, identity))

    def _packaged(self, line: Entry, written: str) -> Entry:
        """The requirement with its path as it is in the package, where the extra code lies beside environment.yml."""
        if "://" in written:
            raise InputError(f"{line.place}: {line} is editable, and no checkout travels with the model; remove -e")
        path, bracket, extras = written.partition("[")
        target = Path(os.path.normpath(self.folder / path))
        if (
            self.extra_code is None
            or not _is_relative(path)
            or not target.resolve().is_relative_to(self.extra_code.resolve())
        ):
            raise InputError(
                f"{line.place}: {line} points to code that does not travel with the model; name a published package, or"
                " put the code into the extra code directory and name it by a relative path"
            )
        if not target.exists():
            raise InputError(f"{line.place}: {line} does not exist; correct the path")
        inside = target.resolve().relative_to(self.extra_code.resolve())
        packaged = PurePosixPath(self.extra_code.absolute().name, inside.as_posix())
        kept = PurePosixPath(path) == packaged
        return Entry(f"{path if kept else f'./{packaged}'}{bracket}{extras}", line.place)


def _is_relative(path: str) -> bool:
    return not (PurePath(path).is_absolute() or path.startswith("~") or re.match(r"\w[\w+.-]*:", path))
