"""The right to register a parent run's ensemble, which one process has at a time.

The first fold may run twice: AzureML restarts a job on another machine while the first machine may still be at work.
Two ensembles of the same folds must not come of it. AzureML has no locks, but a file of a run can be made only once.
So the right comes in generations: who makes the file ``innereye/ensemble_lease/N`` on the parent run has it in
generation N. While it works, it changes a tag of the parent run from time to time. Another process that has seen the
same generation and tag for long (by its own clock) may make the file of the next generation. A process that finds a
later generation than its own has lost the right, and stops before it makes a version.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from innereye_azureml import sdk
from innereye_azureml.failures import DATA_SCIENTIST, Failure, ServiceError
from innereye_core.errors import RegistryError, UsageError

_log = logging.getLogger(__name__)

SECONDS_VARIABLE = "INNEREYE_AZUREML_LEASE_SECONDS"
TAG = "innereye_ensemble_lease"

_FOLDER = "innereye/ensemble_lease"
_DEFAULT_SECONDS = 120.0
_RELEASED = "released"


@contextlib.contextmanager
def held(experiment: Any, run_id: str) -> Iterator[None]:
    """Hold the right to register the ensemble of a parent run, waiting while another process has it and lives.

    Args:
        experiment: the ``azureml.core.Experiment`` of the run.
        run_id: the parent run.

    Raises:
        UsageError: ``INNEREYE_AZUREML_LEASE_SECONDS`` is no number of seconds.
        RegistryError: AzureML refuses or cannot be reached.
    """
    global _current
    lease = _Lease(_Parent(experiment, run_id, sdk.fetch_run(experiment, run_id).container), _patience())
    lease.acquire()
    _current = lease
    try:
        with lease.beating():
            yield
    finally:
        _current = None
        lease.release()


def check() -> None:
    """Make sure that this process still has the right, if it took one; to be called just before it is used.

    Raises:
        RegistryError: another process has it by now, or AzureML cannot be asked.
    """
    if _current is not None:
        _current.beat()


_current: _Lease | None = None
"""The right that this process has."""


@dataclass(frozen=True)
class _Parent:
    """The run whose files and tags the processes meet at."""

    experiment: Any
    run_id: str
    container: str

    def tag(self) -> str | None:
        return sdk.fetch_run(self.experiment, self.run_id).tags.get(TAG)

    def set_tag(self, value: str) -> None:
        sdk.add_tags(self.experiment, self.run_id, {TAG: value})

    def generation(self) -> int:
        """The latest generation; 0 where there is none."""
        client = sdk.artifacts_client(self.experiment.workspace)
        try:
            with sdk.calling(f"look who registers the ensemble of run {self.run_id}"):
                found = client.get_files_by_artifact_prefix_id(f"{sdk.RUN_ORIGIN}/{self.container}/{_FOLDER}")
        except ServiceError as error:
            if error.failure is Failure.NOT_FOUND:
                return 0
            raise
        names = [path.removeprefix(f"{_FOLDER}/") for path, _ in found]
        return max((int(name) for name in names if name.isdigit()), default=0)

    def claim(self, generation: int, content: str) -> bool:
        """Make the file of a generation; whether this process was the first to do so."""
        client = sdk.artifacts_client(self.experiment.workspace)
        path = f"{_FOLDER}/{generation}"
        try:
            with sdk.calling(f"claim the ensemble of run {self.run_id}", role=DATA_SCIENTIST):
                made = client.create_empty_artifacts(sdk.RUN_ORIGIN, self.container, [path])
        except ServiceError:
            # Whoever made it, perhaps this process, and the answer was lost: nobody can tell, so it is not ours.
            if self.generation() >= generation:
                return False
            raise
        with contextlib.suppress(ServiceError), sdk.calling(f"write {path}"):  # for people; it counts without
            url = made.artifact_content_information[path].content_uri
            with sdk.blob_transport() as transport:
                sdk.blob_client(url, transport).upload_blob(content.encode(), overwrite=True)
        return True


class _Lease:
    """One process's part in the play; ``patience`` is in seconds."""

    def __init__(self, parent: _Parent, patience: float) -> None:
        self._parent = parent
        self._patience = patience
        self._token = secrets.token_hex(4)
        self._generation = 0
        self._beats = 0
        self._lock = threading.Lock()

    def acquire(self) -> None:
        """Wait until the right is free or its holder is silent for long, and take it."""
        seen: tuple[int, str | None] | None = None
        since = time.monotonic()
        while True:
            state = (self._parent.generation(), self._parent.tag())
            if state != seen:
                seen, since = state, time.monotonic()
                _log.debug("ensemble of run %s: generation %d, %s", self._parent.run_id, *state)
            is_free = state[0] == 0 or state[1] == _released(state[0])
            is_silent = time.monotonic() - since >= self._patience
            if (is_free or is_silent) and self._take(state[0] + 1):
                if not is_free:
                    _log.warning(
                        "run %s: the process that was registering the ensemble is silent; this one goes on with it",
                        self._parent.run_id,
                    )
                    time.sleep(self._patience / 4)  # what it may have begun is visible after that
                return
            time.sleep(min(5.0, self._patience / 10))

    def _take(self, generation: int) -> bool:
        content = f"{self._token} on {platform.node()} at {datetime.now(UTC).isoformat(timespec='seconds')}\n"
        if not self._parent.claim(generation, content):
            return False
        self._generation = generation
        self.beat()
        return True

    def beat(self) -> None:
        """Say that this process lives, and make sure that the right is still its own.

        Raises:
            RegistryError: it is not, or AzureML cannot be asked.
        """
        with self._lock:
            self._beats += 1
            self._parent.set_tag(f"{self._generation} {self._token} {self._beats}")
        if self._parent.generation() > self._generation:
            raise RegistryError(
                f"run {self._parent.run_id}: another process has taken over the ensemble, since this one was silent "
                f"for {self._patience:g} s; see what it registers ({SECONDS_VARIABLE} sets the time)"
            )

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Keep saying that this process lives, from a thread."""
        ended = threading.Event()

        def keep_beating() -> None:
            while not ended.wait(self._patience / 6):
                try:
                    self.beat()
                except ServiceError as error:  # the next one may get through
                    _log.debug("%s", error)
                except RegistryError:  # lost; whoever is about to use the right finds out
                    return

        thread = threading.Thread(target=keep_beating, name=TAG, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def release(self) -> None:
        """Give the right back, so that nobody has to wait for silence."""
        try:
            self._parent.set_tag(_released(self._generation))
        except ServiceError as error:
            _log.warning("%s; a second process would wait %g s for the ensemble", error, self._patience)


def _released(generation: int) -> str:
    return f"{generation} {_RELEASED}"


def _patience() -> float:
    text = os.environ.get(SECONDS_VARIABLE) or str(_DEFAULT_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"{SECONDS_VARIABLE}={text}: must be a number of seconds, more than 0")
    return seconds
