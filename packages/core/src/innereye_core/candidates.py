"""Lists what a run offers for deployment: one candidate per epoch that has a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core.digests import sha256_of_file
from innereye_core.errors import InputError, MissingPluginError
from innereye_core.model import Candidate, Run

if TYPE_CHECKING:
    from innereye_core.contract.providers import CheckpointFormat

CHECKPOINT_FOLDER = "checkpoints"

_REPEATS = ("last", "recovery")
"""How names of files begin that Lightning and InnerEye write beside the one that is meant to be kept."""


def list_candidates(
    run: Run, formats: Sequence[CheckpointFormat], epochs: Iterable[int] | None = None
) -> tuple[Candidate, ...]:
    """Candidates of a run in ascending order of epoch.

    Args:
        run: the run, with its files in ``checkpoints/``.
        formats: every installed checkpoint format.
        epochs: the only epochs to consider; None: all that have a checkpoint.

    Raises:
        InputError: there is no checkpoint, or none for one of ``epochs``, or two different files claim one epoch.
        MissingPluginError: no checkpoint format is installed.
    """
    if not formats:
        raise MissingPluginError(
            "no installed plugin reads checkpoints: pip install innereye-imaging innereye-segmentation"
        )
    found: dict[int, list[Candidate]] = {}
    for path in _files(run.folder / CHECKPOINT_FOLDER):
        format = _format_of(path, formats)
        if format is not None:
            candidate = Candidate(format.epoch(path), path, format.name)
            found.setdefault(candidate.epoch, []).append(candidate)
    if not found:
        raise InputError(
            f"{run.folder}: has no checkpoint; put files such as {CHECKPOINT_FOLDER}/1_checkpoint.pth.tar there"
        )
    wanted = sorted(found) if epochs is None else sorted(set(epochs))
    absent = [epoch for epoch in wanted if epoch not in found]
    if absent:
        there = ", ".join(map(str, sorted(found)))
        raise InputError(f"{run.folder}: epoch {absent[0]} of the epochs to test has no checkpoint; there are {there}")
    return tuple(_only(found[epoch]) for epoch in wanted)


def has_candidates(run: Run, formats: Sequence[CheckpointFormat]) -> bool:
    """Whether a run has any checkpoint, without opening it."""
    return any(format.recognises(path) for path in _files(run.folder / CHECKPOINT_FOLDER) for format in formats)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}; make it readable") from None


def _format_of(path: Path, formats: Sequence[CheckpointFormat]) -> CheckpointFormat | None:
    recognised = [format for format in formats if format.recognises(path)]
    if len(recognised) > 1:
        names = " and ".join(format.name for format in recognised)
        raise InputError(f"{path}: is recognised by the checkpoint formats {names}; block one of their plugins")
    return recognised[0] if recognised else None


def _only(candidates: list[Candidate]) -> Candidate:
    """The candidate that stands for all files of one epoch."""
    ordered = sorted(candidates, key=lambda candidate: (_repeats(candidate), candidate.checkpoint.name))
    first = ordered[0]
    rivals = [candidate for candidate in ordered[1:] if not _repeats(candidate)]
    digest = sha256_of_file(first.checkpoint) if rivals else None
    for rival in rivals:
        if sha256_of_file(rival.checkpoint) != digest:
            raise InputError(
                f"{first.checkpoint.parent}: {first.checkpoint.name} and {rival.checkpoint.name} both are epoch "
                f"{first.epoch}, and differ; move one of them away"
            )
    return first


def _repeats(candidate: Candidate) -> bool:
    return candidate.checkpoint.name.startswith(_REPEATS)
