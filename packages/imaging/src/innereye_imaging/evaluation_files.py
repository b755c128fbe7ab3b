"""What an evaluation writes: metrics.csv in InnerEye's columns and ours, the comparison, a picture, and all as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innereye_core.config import as_plain
from innereye_core.errors import InputError, UsageError
from innereye_core.publishing import staged_folder, storage_errors, write_file_atomically
from innereye_imaging.box_plot import box_plot
from innereye_imaging.evaluating import Evaluation
from innereye_imaging.evaluation_statistics import Comparison, compare, summarize

METRICS_FILE = "metrics.csv"
BASELINE_FILE = "baseline_metrics.csv"
COMPARISON_FILE = "comparison.csv"
PICTURE_FILE = "metrics_boxplot.png"
DOCUMENT_FILE = "evaluation.json"
_FILES = (METRICS_FILE, BASELINE_FILE, COMPARISON_FILE, PICTURE_FILE, DOCUMENT_FILE)

_COLUMNS = {
    "Dice": "dice",
    "HausdorffDistance_mm": "hausdorff_mm",
    "MeanDistance_mm": "mean_distance_mm",
    "HausdorffDistance95_mm": "hausdorff_95_mm",
    "ReferenceVolume_ml": "reference_ml",
    "PredictedVolume_ml": "predicted_ml",
}
"""Columns of metrics.csv after Patient and Structure, InnerEye's first, with the fields that they hold."""


@dataclass(frozen=True)
class EvaluationReport:
    """Everything that one call of ``innereye evaluate`` found."""

    dataset: Path
    split: str
    evaluation: Evaluation
    baseline: Evaluation | None = None

    @property
    def comparison(self) -> dict[str, Comparison]:
        """Structure → comparison with the baseline; empty without one."""
        return {} if self.baseline is None else compare(self.evaluation, self.baseline)

    def document(self) -> dict[str, Any]:
        """All of it as plain data for JSON: NaN is null, infinity is the text "inf"."""
        return {
            "dataset": str(self.dataset),
            "split": self.split,
            **_evaluation_document(self.evaluation),
            "baseline": None if self.baseline is None else _evaluation_document(self.baseline),
            "comparison": _plain(self.comparison),
        }


def try_output_folder(folder: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Make sure, before any long work, that the files can be written. Nothing is left behind.

    Raises:
        InputError: one of the files exists and may not be replaced.
        UsageError: one of the files is also an input.
        StorageError: the folder cannot be made or written to.
    """
    there = [folder / name for name in _FILES if (folder / name).exists()]
    for path in inputs:
        if path.resolve() in [target.resolve() for target in there]:
            raise UsageError(f"{path} is an input, and would be replaced by the results; choose another --output")
    if there and not overwrite:
        raise InputError(f"{there[0]} exists already; choose another --output, or replace it with --overwrite")
    with staged_folder(folder / METRICS_FILE if folder.exists() else folder):
        pass


def write_report(folder: Path, report: EvaluationReport) -> tuple[Path, ...]:
    """Write every file, each whole, and remove what an earlier evaluation left there that has no successor.

    Returns:
        The files, in the order of their names above.

    Raises:
        StorageError: the disk is full or not writable.
    """
    document = json.dumps(report.document(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    titled = [(f"model {report.evaluation.model}", report.evaluation)]
    contents = {METRICS_FILE: _metrics_csv(report.evaluation)}
    if report.baseline is not None:
        titled.append((f"baseline {report.baseline.model}", report.baseline))
        contents[BASELINE_FILE] = _metrics_csv(report.baseline)
        contents[COMPARISON_FILE] = _comparison_csv(report.comparison)
    contents |= {PICTURE_FILE: box_plot(titled), DOCUMENT_FILE: document.encode()}
    for name, content in contents.items():
        write_file_atomically(folder / name, content)
    with storage_errors(str(folder)):
        for name in _FILES:
            if name not in contents:
                (folder / name).unlink(missing_ok=True)
    return tuple(folder / name for name in contents)


def _metrics_csv(evaluation: Evaluation) -> bytes:
    rows = [
        [subject.subject, name, *(_number(getattr(subject.structures[name], field)) for field in _COLUMNS.values())]
        for subject in evaluation.subjects
        for name in evaluation.structure_names
    ]
    return _csv(["Patient", "Structure", *_COLUMNS], rows)


def _comparison_csv(comparison: Mapping[str, Comparison]) -> bytes:
    rows = [
        [name, found.pairs, found.differing, _number(found.median_difference), _p_value(found.p_value), found.remark]
        for name, found in comparison.items()
    ]
    return _csv(["Structure", "Pairs", "DifferingPairs", "MedianDiceDifference", "WilcoxonP", "Remark"], rows)


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def _number(value: float) -> str:
    """As InnerEye wrote it (nan, inf), with more digits."""
    return f"{value:.6f}"


def _p_value(value: float) -> str:
    return f"{value:.6g}"


def _evaluation_document(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "model": evaluation.model,
        "digest": evaluation.digest,
        "runtime": evaluation.runtime,
        "device": evaluation.device,
        "subjects": [
            {"subject": subject.subject, "structures": _plain(dict(subject.structures))}
            for subject in evaluation.subjects
        ],
        "failures": dict(evaluation.failures),
        "summary": _plain(summarize(evaluation)),
    }


def _plain(value: Any) -> Any:
    """Plain data that JSON can hold."""
    plain = as_plain(value)
    if isinstance(plain, dict):
        return {key: _plain(item) for key, item in plain.items()}
    return "inf" if isinstance(plain, float) and math.isinf(plain) else plain
