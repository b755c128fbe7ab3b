"""Has studies scored by the workers of a Dask cluster: one on this machine, or one that is there."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from innereye_core.errors import InnerEyeError, UsageError

if TYPE_CHECKING:
    from distributed import Client, Future

    from innereye_core.scoring_studies import StudyOutcome, StudyTask
    from innereye_core.studies import StudyFiles

_LOCAL = "dask"
_SCHEMES = ("tcp://", "tls://", "ws://", "wss://")
_CONNECTING_SECONDS = 30

_log = logging.getLogger(__name__)


class DaskExecutor:
    """``--jobs dask``: a cluster on this machine; ``--jobs tcp://scheduler:8786``: that cluster."""

    name = "dask"

    def accepts(self, jobs: str) -> bool:
        """Whether this is ``dask`` or the address of a scheduler."""
        return jobs == _LOCAL or jobs.startswith(_SCHEMES)

    def run(self, task: StudyTask, studies: Sequence[StudyFiles], jobs: str) -> Iterator[StudyOutcome]:
        """Outcomes as they come. Work of a worker that dies is given to another one.

        The folders of studies and results, and the model if it is a folder, must have the same paths on every worker.

        Raises:
            UsageError: the scheduler cannot be reached.
            InnerEyeError: what the task raises concerns all studies; or one study has killed several workers.
        """
        from distributed import as_completed

        with _client(jobs) as client:
            work = secrets.token_hex(8)  # a scheduler may know studies of these names from earlier
            futures = client.map(task, studies, key=[f"{study.name}-{work}" for study in studies])
            try:
                for future in as_completed(futures):
                    yield _outcome(future)
            finally:
                client.cancel(futures)


def _outcome(future: Future) -> StudyOutcome:
    from distributed import KilledWorker

    try:
        outcome: StudyOutcome = future.result()
        return outcome
    except KilledWorker as error:
        raise InnerEyeError(
            f"workers died on {error.task}, perhaps for want of memory ({error.last_worker.address} was the last); go "
            "on with --resume on workers with more memory"
        ) from None


@contextlib.contextmanager
def _client(jobs: str) -> Iterator[Client]:
    """A client of the cluster that ``jobs`` names; a cluster on this machine ends with it."""
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        address: Any = jobs
        if jobs == _LOCAL:
            address = stack.enter_context(LocalCluster(threads_per_worker=1, dashboard_address=None))
        try:
            client = stack.enter_context(Client(address, timeout=_CONNECTING_SECONDS))
        except (OSError, ValueError) as error:
            raise UsageError(f"--jobs {jobs}: no Dask scheduler answers there ({error}); start it first") from None
        _log.info("scoring on %s", client)
        yield client
