"""The evaluator that reads ready-made scores: ``epoch_NNN/Val/metrics.csv``, as older toolboxes wrote them."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from innereye_core.config import BACKGROUND, ModelConfig
from innereye_core.contract.providers import Progress, Providers
from innereye_core.errors import InputError
from innereye_core.model import Candidate, Run, SubjectScore

_COLUMNS = ("Patient", "Structure", "Dice")


class MetricsCsv:
    """Scores from ``epoch_NNN/Val/metrics.csv`` (columns Patient, Structure, Dice, …) in the run's folder.

    An empty or ``nan`` Dice is NaN. Checkpoints are not opened.
    """

    name = "metrics-csv"
    priority = 100

    def evaluate(
        self,
        run: Run,
        config: ModelConfig,
        candidates: Sequence[Candidate],
        extra_code: Path | None,
        providers: Providers,
        progress: Progress,
    ) -> Mapping[int, Sequence[SubjectScore]]:
        """Scores of the epochs that have a metrics.csv."""
        files = {c.epoch: run.folder / f"epoch_{c.epoch:03d}" / "Val" / "metrics.csv" for c in candidates}
        return {epoch: read_metrics(path, config.structure_names) for epoch, path in files.items() if path.is_file()}


def read_metrics(path: Path, structure_names: Sequence[str]) -> list[SubjectScore]:
    """Dice per subject and structure from a metrics.csv.

    Raises:
        InputError: a column, subject, structure or value is missing, doubled or impossible.
    """
    try:
        scores = _read_rows(path, structure_names)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is no UTF-8 table of comma-separated values: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; make it readable") from None
    if not scores:
        raise InputError(f"{path}: has no rows; remove the file to have the epoch evaluated")
    for subject, dice in scores.items():
        absent = [name for name in structure_names if name not in dice]
        if absent:
            raise InputError(
                f"{path}: subject {subject!r} has no row for structure {absent[0]!r}; add it, or remove the file"
            )
    return [SubjectScore(subject, {name: dice[name] for name in structure_names}) for subject, dice in scores.items()]


def _read_rows(path: Path, structure_names: Sequence[str]) -> dict[str, dict[str, float]]:
    scores: dict[str, dict[str, float]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        missing = [column for column in _COLUMNS if column not in (rows.fieldnames or ())]
        if missing:
            raise InputError(f"{path}: has no column {missing[0]!r}; its columns must be {', '.join(_COLUMNS)}, …")
        for row in rows:
            subject, structure, text = (str(row[column] or "").strip() for column in _COLUMNS)
            if structure.lower() == BACKGROUND:
                continue
            where = f"{path}:{rows.line_num}"
            if not subject:
                raise InputError(f"{where}: names no Patient; write the subject's id, as in dataset.csv")
            if structure not in structure_names:
                raise InputError(
                    f"{where}: structure {structure!r} is none of the model's ({', '.join(structure_names)})"
                )
            if structure in scores.setdefault(subject, {}):
                raise InputError(f"{where}: subject {subject!r}, structure {structure!r} is there twice; keep one row")
            scores[subject][structure] = _dice(text, where)
    return scores


def _dice(text: str, where: str) -> float:
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{where}: Dice {text!r} is no number; write a value from 0 to 1, or nan") from None
    if not math.isnan(value) and not 0 <= value <= 1:
        raise InputError(f"{where}: Dice {text!r} is outside 0…1")
    return value
