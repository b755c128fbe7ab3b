"""Hook implementation of the Dask plugin: ``score --studies … --jobs dask`` and ``--jobs tcp://scheduler:8786``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from innereye_core.contract import hookimpl

if TYPE_CHECKING:
    from innereye_dask.executor import DaskExecutor


@hookimpl
def innereye_executors() -> list[type[DaskExecutor]]:
    """A Dask cluster."""
    from innereye_dask.executor import DaskExecutor

    return [DaskExecutor]
