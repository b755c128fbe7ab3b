"""Finds training runs: by a reference, and the one that this process is part of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core.errors import InputError
from innereye_core.model import Run

if TYPE_CHECKING:
    from innereye_core.contract.providers import RunSource
    from innereye_core.host import Host


def open_run(run: str | Path | Run, host: Host) -> Run:
    """Open a run by its reference.

    Raises:
        InputError: no run source knows it.
    """
    if isinstance(run, Run):
        return run
    for source in host.run_sources():
        found = source.open(str(run))
        if found is not None:
            return found
    raise InputError(f"{run}: no such run; give the folder that has model.yaml and checkpoints/")


def current_run(host: Host) -> Run | None:
    """The run that this process is part of, if any."""
    return next((found for source in host.run_sources() if (found := source.current())), None)


def source_of(run: Run, host: Host) -> RunSource:
    """The source that opened the run."""
    return next(source for source in host.run_sources() if source.name == run.source)
