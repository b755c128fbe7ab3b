"""Compares label files from a process that must stay small."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.processes import run


def disagreement(labels: Path, reference: Path) -> float:
    """Fraction of voxels with another label.

    Raises:
        ContenderFailed: a file is missing, or they have different shapes.
    """
    return float(run([sys.executable, "-m", "benchmarks.compare", str(labels), str(reference)])[1])
