"""Writes the packaged form of a checkpoint: the weights alone, in the same kind of file and with the same keys."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from innereye_core.digests import sha256_of_file
from innereye_core.errors import StorageError
from innereye_core.model import PackagedCheckpoint
from innereye_segmentation.checkpoints.names import format_of
from innereye_segmentation.checkpoints.reading import Checkpoint, epoch_of, read_checkpoint


def write_packaged(source: Path, target: Path) -> PackagedCheckpoint:
    """Write the weights of ``source`` to ``target``, and nothing else.

    InnerEye's and Lightning's files become a dict of ``epoch`` and ``state_dict``, a bare state dict stays one, and
    safetensors stays safetensors with ``epoch`` as its only metadata. Equal weights give equal bytes.

    Raises:
        InputError: the file is corrupt, no checkpoint, states no epoch, or holds a class that is not plain data.
        IntegrityError: a weight is NaN or infinite.
        StorageError: the target cannot be written.
    """
    checkpoint = read_checkpoint(source)
    epoch = epoch_of(source) if checkpoint.stored_epoch is None else checkpoint.stored_epoch
    content = _serialized(source, checkpoint, epoch)
    try:
        target.write_bytes(content)
    except OSError as error:
        remedy = "free space or choose another folder"
        raise StorageError(f"{target}: cannot be written: {error.strerror or error}; {remedy}") from error
    return PackagedCheckpoint(
        source_name=source.name,
        source_sha256=sha256_of_file(source),
        source_size=source.stat().st_size,
        stored_epoch=checkpoint.stored_epoch,
        removed=checkpoint.removed,
        notes=checkpoint.notes,
    )


def _serialized(source: Path, checkpoint: Checkpoint, epoch: int) -> bytes:
    """The packaged file. Made in memory, because torch.save reports a full disk as a broken archive."""
    weights = _owned(checkpoint.weights)
    if format_of(source) == "safetensors":
        return safetensors.torch.save(weights, {"epoch": str(epoch)})
    bare = format_of(source) == "state-dict" and not checkpoint.wrapped
    buffer = io.BytesIO()
    torch.save(weights if bare else {"epoch": epoch, "state_dict": weights}, buffer)
    return buffer.getvalue()


def _owned(weights: dict[str, Tensor]) -> OrderedDict[str, Tensor]:
    """The same weights without what else their storages hold, and with the versions of their modules."""
    owned = OrderedDict(
        (key, tensor.detach().clone(memory_format=torch.contiguous_format)) for key, tensor in weights.items()
    )
    versions = getattr(weights, "_metadata", None)
    if versions is not None:
        owned._metadata = versions  # type: ignore[attr-defined]  # where torch keeps it, and load_state_dict looks for it
    return owned
