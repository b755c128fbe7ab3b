"""SHA-256 digests of files and bytes, as 64 hexadecimal digits."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

_CHUNK_BYTES = 1 << 20


def sha256_of_file(path: Path) -> str:
    """Digest of a file's content, read in pieces.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_bytes(content: bytes) -> str:
    """Digest of ``content``."""
    return hashlib.sha256(content).hexdigest()


def copy_with_digest(source: BinaryIO, target: BinaryIO) -> str:
    """Copy the rest of ``source`` to ``target``, and return the digest of exactly the bytes that were written.

    Raises:
        OSError: ``source`` cannot be read or ``target`` not be written.
    """
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()
