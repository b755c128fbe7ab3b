"""Which cross-validation folds of a parent run go into its ensemble."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from innereye_core.candidates import has_candidates
from innereye_core.errors import InputError, MissingPluginError
from innereye_core.model import Run

if TYPE_CHECKING:
    from innereye_core.contract.providers import CheckpointFormat

_log = logging.getLogger(__name__)

FOLDS_PROPERTY = "number_of_cross_validation_splits"
"""Tag or property of a parent run that says how many folds there must be."""

_UNUSABLE = {
    "failed",
    "canceled",
    "cancelled",
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
    stated = parent.properties.get(FOLDS_PROPERTY) or parent.tags.get(FOLDS_PROPERTY) or "0"
    count = max(int(stated) if stated.isdigit() else 0, max(children) + 1)
    missing = {}
    for number in range(count):
        child = children.get(number)
        if child is None:
            missing[number] = "is not there"
        elif child.status.lower() in _UNUSABLE:
            missing[number] = f"is {child.status}"
        elif not has_candidates(child, formats):
            missing[number] = "has no checkpoint"
    if missing:
        what = ", ".join(f"fold {number} {reason}" for number, reason in missing.items())
        if not allow_missing:
            raise InputError(f"{parent.folder}: {what}; finish it, or pass --allow-missing-folds")
        _log.warning("%s: ensemble without all folds: %s", parent.folder, what)
    usable = tuple(children[number] for number in sorted(children) if number not in missing)
    if len(usable) < 2:
        raise InputError(f"{parent.folder}: an ensemble needs at least two folds, and there is {len(usable)}")
    return usable
