"""Which cross-validation folds of a parent run go into its ensemble, and when they are ready."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from innereye_core.candidates import has_candidates
from innereye_core.errors import InputError, MissingPluginError
from innereye_core.model import FoldRun, Run

if TYPE_CHECKING:
    from innereye_core.contract.providers import CheckpointFormat, ConcurrentFolds, Progress

_log = logging.getLogger(__name__)

FOLDS_PROPERTY = "number_of_cross_validation_splits"
"""Tag or property of a parent run that says how many folds there must be."""

_FIRST_PAUSE_SECONDS, _BACK_OFF, _LONGEST_PAUSE_SECONDS = 1.0, 1.5, 60.0

_COMPLETED = "completed"
_FAILED = {"failed", "canceled", "cancelled"}

_UNUSABLE = _FAILED | {
    "notstarted",
    "queued",
    "preparing",
    "starting",
    "running",
    "finalizing",
}
"""Statuses, in lower case, of folds whose checkpoints are not what the training is meant to end with."""


def usable_folds(
    parent: Run, folds: Sequence[Run], formats: Sequence[CheckpointFormat], *, allow_missing: bool
) -> tuple[Run, ...]:
    """The folds of a parent run, in order; all of them, unless missing ones are allowed.

    A fold is missing if a number is left out, if there are fewer than the parent run says, if its training has not
    ended well, or if it has no checkpoint.

    Args:
        parent: the run that the folds belong to.
        folds: its child runs.
        formats: every installed checkpoint format.
        allow_missing: whether to go on without missing folds.

    Raises:
        InputError: a fold is missing and must not be, or fewer than two are left.
        MissingPluginError: no checkpoint format is installed.
    """
    if not formats:
        raise MissingPluginError(
            "no installed plugin reads checkpoints: pip install innereye-imaging innereye-segmentation"
        )
    children = {int(child.fold): child for child in folds if child.fold is not None}
    if not children:
        raise InputError(f"{parent.folder}: has no child runs 0, 1, …, so there is nothing to make an ensemble of")
    missing = {}
    for number in range(_count(parent, children)):
        child = children.get(number)
        if child is None:
            missing[number] = "is not there"
        elif child.status.lower() in _UNUSABLE:
            missing[number] = f"is {child.status}"
        elif not has_candidates(child, formats):
            missing[number] = "has no checkpoint"
    usable = tuple(children[number] for number in sorted(children) if number not in missing)
    _require_enough(str(parent.folder), missing, len(usable), allow_missing)
    return usable


def wait_for_folds(
    source: ConcurrentFolds,
    parent: Run,
    own: FoldRun,
    *,
    timeout_seconds: float,
    allow_missing: bool,
    progress: Progress,
) -> tuple[FoldRun, ...]:
    """Wait until every other fold of a parent run has completed and deployed its model, or cannot any more.

    Args:
        source: where the folds run.
        parent: the run that they belong to.
        own: the fold that waits; it has deployed its model.
        timeout_seconds: how long to wait for folds that have not ended.
        allow_missing: whether to go on without folds that have failed, or have not ended in time.
        progress: where to say how many folds are ready.

    Returns:
        The folds that are ready, ``own`` among them, in order.

    Raises:
        InputError: a fold is missing and must not be; two completed runs are the same fold; fewer than two are left.
        RegistryError: the folds cannot be asked for.
    """
    if not _stated_count(parent):
        _log.warning(
            "run %s does not say how many folds there are (tag %s): the highest index that is there is taken for the "
            "last",
            parent.id,
            FOLDS_PROPERTY,
        )
    deadline, pause = time.monotonic() + timeout_seconds, _FIRST_PAUSE_SECONDS
    ready: dict[int, FoldRun] = {}
    with progress.track(f"folds of {parent.id}", _count(parent, [int(own.fold)])) as became_ready:
        while True:
            before = len(ready)
            ready, running, missing = _sorted_by_state(source.folds(parent), own, parent)
            became_ready(len(ready) - before)
            if not running or (missing and not allow_missing):
                break
            left = deadline - time.monotonic()
            if left <= 0:
                missing |= {number: f"{reason} after {timeout_seconds:g} s" for number, reason in running.items()}
                break
            what = ", ".join(f"fold {number} {reason}" for number, reason in running.items())
            _log.info("run %s: waiting: %s", parent.id, what)
            time.sleep(min(pause, left))
            pause = min(pause * _BACK_OFF, _LONGEST_PAUSE_SECONDS)
    _require_enough(f"run {parent.id}", missing, len(ready), allow_missing)
    return tuple(ready[number] for number in sorted(ready))


def _sorted_by_state(
    folds: Sequence[FoldRun], own: FoldRun, parent: Run
) -> tuple[dict[int, FoldRun], dict[int, str], dict[int, str]]:
    """Folds that are ready; what the others are that may still become so; what those are that never will."""
    ready: dict[int, FoldRun] = {int(own.fold): own}
    running: dict[int, str] = {}
    missing: dict[int, str] = {}
    for number in range(_count(parent, [int(own.fold), *(int(fold.fold) for fold in folds)])):
        if number in ready:
            continue
        runs = [fold for fold in folds if int(fold.fold) == number]
        deployed = [fold for fold in runs if fold.status.lower() == _COMPLETED and fold.model_id is not None]
        unended = [fold for fold in runs if fold.status.lower() not in _FAILED | {_COMPLETED}]
        if len(deployed) > 1:
            names = " and ".join(fold.id for fold in deployed)
            raise InputError(f"run {parent.id}: {names} both are fold {number}, and completed; take the tag from one")
        if deployed:
            ready[number] = deployed[0]
        elif unended or not runs:  # a fold that is not there may still be started
            running[number] = f"is {unended[0].status}" if unended else "is not there"
        else:
            last = runs[0].status
            missing[number] = "has deployed no model" if last.lower() == _COMPLETED else f"is {last}"
    return ready, running, missing


def _stated_count(parent: Run) -> int:
    stated = parent.properties.get(FOLDS_PROPERTY) or parent.tags.get(FOLDS_PROPERTY) or "0"
    return int(stated) if stated.isdigit() else 0


def _count(parent: Run, numbers: Iterable[int]) -> int:
    """How many folds there must be: as many as the parent run says, and no fewer than there are."""
    return max(_stated_count(parent), max(numbers, default=-1) + 1)


def _require_enough(title: str, missing: Mapping[int, str], usable: int, allow_missing: bool) -> None:
    if missing:
        what = ", ".join(f"fold {number} {reason}" for number, reason in missing.items())
        if not allow_missing:
            raise InputError(f"{title}: {what}; finish it, or pass --allow-missing-folds")
        _log.warning("%s: ensemble without all folds: %s", title, what)
    if usable < 2:
        raise InputError(f"{title}: an ensemble needs at least two folds, and there is {usable}")
