"""Text that knows which file and line it came from, so that every message can say so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from innereye_core.environments.credentials import has_credentials, redacted
from innereye_core.errors import InputError

CREDENTIAL_REMEDY = (
    "the environment travels inside the model package; remove it, and name an environment variable (${NAME}) in its"
    " place or keep it in .condarc or .netrc"
)
_LONGEST_SHOWN = 160


@dataclass(frozen=True)
class Place:
    """A line of a file."""

    file: str
    """As messages name the file."""
    line: int
    """Counted from 1."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Entry:
    """A piece of text, exactly as it was written, and its place."""

    text: str
    place: Place

    def __str__(self) -> str:
        return shown(self.text)


def one_line(text: str) -> str:
    """``text`` on one line, and without credentials."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", redacted(text)).strip()


def shown(text: str) -> str:
    """``text`` as a message may show it: on one line, not too long, and without credentials."""
    line = one_line(text)
    return line if len(line) <= _LONGEST_SHOWN else line[: _LONGEST_SHOWN - 1] + "…"


def refuse_credentials(entry: Entry) -> None:
    """Raise where the text holds a URL with a credential.

    Raises:
        InputError: it does; the credential itself is not in the message.
    """
    if has_credentials(entry.text):
        raise InputError(f"{entry.place}: {entry} holds a credential, and {CREDENTIAL_REMEDY}")


def read_text(path: Path, label: str) -> str:
    """Read a UTF-8 text file, with or without byte order mark.

    Args:
        path: the file.
        label: how messages name it.

    Raises:
        InputError: it is missing, a folder, not readable, or no UTF-8 text.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{label}: no such file; check the path") from None
    except IsADirectoryError:
        raise InputError(f"{label}: is a folder; name the file inside it") from None
    except OSError as error:
        raise InputError(f"{label}: cannot be read ({error.strerror}); check the path and its permissions") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{label}: is encoded as UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise InputError(f"{label}:{line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{label}:{line}: holds a NUL character; save the file as plain UTF-8 text")
    return text
