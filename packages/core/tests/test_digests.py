"""Digests are SHA-256 in hexadecimal, of files, of bytes, and of what was copied."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from innereye_core.digests import copy_with_digest, sha256_of_bytes, sha256_of_file

# FIPS 180-2, appendix B.1 and the empty message.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(("content", "digest"), [(b"abc", ABC), (b"", NOTHING)])
def test_published_test_vectors(tmp_path: Path, content: bytes, digest: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)

    assert sha256_of_file(path) == digest
    assert sha256_of_bytes(content) == digest


def test_a_copy_has_the_digest_of_what_was_written() -> None:
    content = bytes(range(256)) * 10_000  # more than one piece
    target = io.BytesIO()

    digest = copy_with_digest(io.BytesIO(content), target)

    assert target.getvalue() == content
    assert digest == sha256_of_bytes(content)
