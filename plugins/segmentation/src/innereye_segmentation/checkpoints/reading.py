"""Reads checkpoint files without running anything that is inside, and checks that their weights can be used.

PyTorch's files are read with ``weights_only=True``: tensors and plain data, no class. Where it is possible the file is
mapped into memory, so that an optimizer state beside the weights is not read.
"""

from __future__ import annotations

import logging
import pickletools
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from innereye_core.errors import InputError, IntegrityError
from innereye_segmentation.checkpoints.names import epoch_in_name, format_of

logger = logging.getLogger(__name__)

_WEIGHTS = "state_dict"
_EPOCH = "epoch"
_MEAN_TEACHER = "mean_teacher_state_dict"
_NAMED_IN_ERRORS = 3


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds, as far as a network needs it."""

    weights: dict[str, Tensor]
    """Key → tensor, keys as stored. An ``OrderedDict`` with ``_metadata`` where the file has one."""
    stored_epoch: int | None
    """The epoch that the file itself states."""
    wrapped: bool
    """Whether the weights are an entry ``state_dict`` of a larger dict, rather than the whole file."""
    removed: tuple[str, ...] = ()
    """Top-level entries that no network needs, such as optimizer states."""
    notes: tuple[str, ...] = ()
    """What somebody who uses the weights should know."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the weights of a checkpoint, and check that every one of them is finite.

    Where the file holds a mean teacher (``mean_teacher_state_dict``), its weights are taken: InnerEye stores it exactly
    when the training computed one, and then scores with it (``InferencePipeline.create_from_checkpoint``, 2020).

    Raises:
        InputError: the file is missing, corrupt, no checkpoint, or holds a class that is not plain data.
        IntegrityError: a weight is NaN or infinite.
    """
    checkpoint = _read_safetensors(path) if format_of(path) == "safetensors" else _read_torch(path)
    for key, tensor in checkpoint.weights.items():
        if not isinstance(tensor, Tensor) or not isinstance(key, str):
            raise InputError(
                f"{path}: entry {key!r} of the weights ({type(tensor).__name__}) is no named tensor; "
                f"save a network's state_dict(), or a dict with it as {_WEIGHTS!r}"
            )
        if not torch.isfinite(tensor).all():
            raise IntegrityError(f"{path}: weight {key!r} has NaN or infinite values; choose another epoch")
    for note in checkpoint.notes:
        logger.info("%s: %s", path, note)
    return checkpoint


def epoch_of(path: Path) -> int:
    """The epoch of a checkpoint: Lightning's as stored, others' from the file name, else as stored.

    Raises:
        InputError: there is none, or the file had to be opened for it and cannot be used.
    """
    is_lightning = format_of(path) == "lightning"
    epoch = None if is_lightning else epoch_in_name(path)
    if epoch is None:
        epoch = _stored_epoch(path)
    if epoch is None:
        remedy = "save it with one" if is_lightning else f"rename it, for example to 12_checkpoint{path.suffix}"
        raise InputError(f"{path}: states no epoch; {remedy}")
    return epoch


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a checkpoint into a network, every key and shape exactly.

    The prefix ``model.`` of a Lightning module is taken off, and so is ``module.`` of ``DataParallel``, but only where
    every key carries it (and, for ``module.``, not every key of the network does as well).

    Raises:
        InputError: as :func:`read_checkpoint`; or keys are missing, unexpected or of another shape.
        IntegrityError: a weight is NaN or infinite.
    """
    weights = read_checkpoint(path).weights
    wanted = network.state_dict()
    if format_of(path) == "lightning":
        _strip_common_prefix(weights, "model.")
    if not _all_start_with(wanted, "module."):
        _strip_common_prefix(weights, "module.")
    missing = [key for key in wanted if key not in weights]
    unexpected = [key for key in weights if key not in wanted]
    reshaped = [
        f"{key} ({tuple(weights[key].shape)}, the network has {tuple(tensor.shape)})"
        for key, tensor in wanted.items()
        if key in weights and weights[key].shape != tensor.shape
    ]
    faults = [
        f"{len(keys)} {what}: {', '.join(keys[:_NAMED_IN_ERRORS])}{', …' if len(keys) > _NAMED_IN_ERRORS else ''}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if keys
    ]
    if faults:
        raise InputError(
            f"{path}: does not fit the network; keys {'; '.join(faults)}; check network.factory and network.arguments"
        )
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:  # a module of the network that loads in its own way
        raise InputError(f"{path}: does not fit the network: {' '.join(str(error).split())}") from error


def _stored_epoch(path: Path) -> int | None:
    if format_of(path) == "safetensors":
        return _read_safetensors(path).stored_epoch
    content = _unpickle(path)
    return _whole_number(content.get(_EPOCH)) if isinstance(content, Mapping) else None


def _whole_number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _read_torch(path: Path) -> Checkpoint:
    content = _unpickle(path, checked=True)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds {_kind(content)}, not weights; save a network's state_dict()")
    weights_key = _MEAN_TEACHER if _MEAN_TEACHER in content else _WEIGHTS
    weights = content.get(weights_key)
    if isinstance(weights, dict) and weights:
        notes: tuple[str, ...] = ()
        if weights_key == _MEAN_TEACHER:
            notes = (f"{_WEIGHTS} is the mean teacher's ({_MEAN_TEACHER}), the weights that InnerEye scores with",)
        return Checkpoint(
            weights=weights,
            stored_epoch=_whole_number(content.get(_EPOCH)),
            wrapped=True,
            removed=tuple(sorted(str(key) for key in content if key not in (weights_key, _EPOCH))),
            notes=notes,
        )
    if all(isinstance(value, Tensor) for value in content.values()):
        return Checkpoint(weights=content, stored_epoch=None, wrapped=False)
    entries = ", ".join(sorted(map(str, content)))
    raise InputError(
        f"{path}: has no weights under {weights_key!r} (entries: {entries}); save a network's state_dict(), "
        f"or a dict with it as {_WEIGHTS!r}"
    )


def _kind(content: object) -> str:
    return f"an empty {type(content).__name__}" if isinstance(content, dict) else type(content).__name__


def _unpickle(path: Path, checked: bool = False) -> Any:
    """The content of a file of torch.save; ``checked``: with the checksums of its zip archive, where it is one."""
    try:
        is_archive = zipfile.is_zipfile(path)
        if checked and is_archive:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise InputError(f"{path}: is corrupt, the checksum of {damaged} is wrong; fetch the file again")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch.load warns of ends in one of the errors below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except (InputError, MemoryError):
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}; check the path") from error
    except Exception as error:  # damaged pickles raise whatever their bytes lead to
        if refused := _refused_classes(path):
            raise InputError(
                f"{path}: holds pickled classes, which are never loaded: {', '.join(refused)}; "
                "save the network's state_dict() alone"
            ) from error
        raise InputError(f"{path}: is corrupt or no PyTorch checkpoint; fetch or save the file again") from error


def _refused_classes(path: Path) -> list[str]:
    """Names of the classes and functions in a file that weights-only loading refuses, sorted."""
    with suppress(Exception):  # not an archive, or written with an opcode that torch does not read
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    names: set[str] = set()
    with suppress(Exception), path.open("rb") as file:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                pickle_name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
                names.update(_globals_in_pickle(archive.open(pickle_name)))
        else:
            while True:  # the older format is several pickles in a row; the end of the last one raises
                names.update(_globals_in_pickle(file))
    harmless = ("torch._utils.", "torch.storage.", "collections.OrderedDict")
    return sorted(name for name in names if not name.startswith(harmless) and not _is_torch_type(name))


def _is_torch_type(name: str) -> bool:
    return name.startswith("torch.") and name.count(".") == 1


def _globals_in_pickle(file: IO[bytes]) -> set[str]:
    """Every ``module.name`` that one complete pickle refers to, found without running it."""
    names: set[str] = set()
    strings: list[str] = []
    memo: dict[int, str] = {}
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL":
            names.add(str(argument).replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL":
            names.add(".".join(strings[-2:]))
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = strings[-1] if strings else ""
        elif opcode.name in ("BINGET", "LONG_BINGET") and isinstance(argument, int):
            strings.append(memo.get(argument, ""))
        elif isinstance(argument, str):
            strings.append(argument)
    return names


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            keys = file.keys()
            weights = {key: file.get_tensor(key) for key in keys}
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}; check the path") from error
    except SafetensorError as error:
        raise InputError(f"{path}: is corrupt or no safetensors file: {error}; fetch or save it again") from error
    if not weights:
        raise InputError(f"{path}: holds no weights; save a network's state_dict()")
    epoch = metadata.get(_EPOCH, "")
    removed = tuple(sorted(f"metadata {key}" for key in metadata if key != _EPOCH))
    return Checkpoint(weights, int(epoch) if epoch.isdecimal() else None, wrapped=False, removed=removed)


def _all_start_with(keys: Iterable[str], prefix: str) -> bool:
    return all(key.startswith(prefix) for key in keys)


def _strip_common_prefix(weights: dict[str, Tensor], prefix: str) -> None:
    if _all_start_with(weights, prefix):
        consume_prefix_in_state_dict_if_present(weights, prefix)
