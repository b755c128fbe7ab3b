"""The table that a selection was made from, as plain data for validation.json and for ``--json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from innereye_core.config import as_plain
from innereye_core.model import Member, Selection

VALIDATION_FILE = "validation.json"


def selection_document(selection: Selection) -> dict[str, Any]:
    """A selection with the scores of every candidate; an undefined Dice is null."""
    return {
        "policy": selection.policy,
        "evaluated": selection.evaluated,
        "selected": {"epoch": selection.selected.epoch, "checkpoints": [str(selection.selected.checkpoint)]},
        "candidates": [
            {
                "epoch": scored.epoch,
                "score": as_plain(scored.score),
                "structures": as_plain(scored.structures),
                "subjects": [subject.subject for subject in scored.subjects],
            }
            for scored in selection.candidates
        ],
    }


def validation_bytes(members: Sequence[Member]) -> bytes:
    """The content of validation.json: every candidate, every subject, every structure, per member."""
    documents = {member.run.fold or "": _member_document(member) for member in members}
    if len(members) == 1:
        document = {"schema_version": 1, **next(iter(documents.values()))}
    else:
        evaluated = all(member.selection.evaluated for member in members)
        document = {"schema_version": 1, "evaluated": evaluated, "folds": documents}
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _member_document(member: Member) -> dict[str, Any]:
    document = selection_document(member.selection)
    document["selected"]["checkpoints"] = [member.path]
    for candidate, scored in zip(document["candidates"], member.selection.candidates, strict=True):
        candidate["subjects"] = [
            {"subject": subject.subject, "score": as_plain(subject.mean_dice), "structures": as_plain(subject.dice)}
            for subject in scored.subjects
        ]
    return document
