"""Moves bytes between files and blobs, in pieces, with a digest of exactly what is sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from innereye_core.errors import IntegrityError
from innereye_core.publishing import storage_errors

BLOCK_BYTES = 8 << 20
"""Size of the pieces that a file is read and sent in: what one transfer holds in memory, once or twice."""


def upload(blob: Any, source: BinaryIO, sha256: str, moved: Callable[[int], None]) -> bool:
    """Write the rest of a file to a blob, if its digest is the right one.

    Args:
        blob: the SDK's client of the blob.
        source: the file.
        sha256: what its digest must be.
        moved: called with the number of bytes that have just been sent.

    Returns:
        Whether it was; the blob is as it was before where it was not.

    Raises:
        Exception: whatever the SDK raises.
    """
    digest = hashlib.sha256()
    block = source.read(BLOCK_BYTES)
    digest.update(block)
    following = source.read(BLOCK_BYTES) if len(block) == BLOCK_BYTES else b""
    if not following:
        if digest.hexdigest() != sha256:
            return False
        # Overwriting, so that a second try succeeds where only the answer to the first was lost.
        blob.upload_blob(block, overwrite=True, validate_content=True)
        moved(len(block))
        return True
    ids: list[str] = []
    while block:
        ids.append(f"{len(ids):08}")
        blob.stage_block(ids[-1], block, validate_content=True)
        moved(len(block))
        digest.update(following)
        block, following = following, source.read(BLOCK_BYTES)
    if digest.hexdigest() != sha256:
        return False
    blob.commit_block_list(ids)
    return True


def download(blob: Any, target: Path, moved: Callable[[int], None]) -> None:
    """Write a blob to a new file.

    Args:
        blob: the SDK's client of the blob.
        target: the file; its folder exists.
        moved: called with the number of bytes that have just arrived.

    Raises:
        IntegrityError: not as much arrived as the blob holds.
        StorageError: the disk is full or not writable.
        Exception: whatever the SDK raises.
    """
    arriving = blob.download_blob()
    arrived = 0
    with storage_errors(str(target)), target.open("xb") as file:
        for piece in arriving.chunks():
            file.write(piece)
            arrived += len(piece)
            moved(len(piece))
    if arrived != arriving.size:
        raise IntegrityError(f"{target.name}: {arrived} of {arriving.size} bytes arrived; download it again")
