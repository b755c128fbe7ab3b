"""A task that can be sent to the workers of a cluster."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from innereye_core.errors import InnerEyeError
from innereye_core.scoring_studies import StudyOutcome
from innereye_core.studies import StudyFiles


@dataclass(frozen=True)
class Task:
    """Notes which process took which study; stands for scoring, whose own tests are elsewhere."""

    notes: Path
    seconds: float = 0.05

    def __call__(self, study: StudyFiles) -> StudyOutcome:
        (self.notes / f"{study.name}-{os.getpid()}-{time.monotonic_ns()}").touch()
        time.sleep(self.seconds)
        if study.problem == "full":
            raise InnerEyeError("the disk is full")
        if study.problem == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        (self.notes / f"done-{study.name}").touch()
        return StudyOutcome(study.name, "scored")
