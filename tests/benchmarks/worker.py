"""The process of one contender: ``python -m benchmarks.worker CONTENDER JOB`` prints its figures as JSON."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from typing import Any

from benchmarks.jobs import Figures, Job


def work(module_name: str, job: Job) -> Figures:
    """Let a contender's module do its task."""
    module: Any = importlib.import_module(f"benchmarks.{module_name}")
    figures: Figures
    if job.task == "segment":
        labels, figures = module.segment(job)
        import numpy as np

        np.save(job.output, labels)
        return figures
    figures = getattr(module, job.task)(job)
    return figures


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dataclasses.asdict(work(sys.argv[1], Job.parse(sys.argv[2])))) + "\n")
