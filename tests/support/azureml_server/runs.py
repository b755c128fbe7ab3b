"""Runs: their state over time, and how the history service writes them."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from azureml_server.messages import Json, timestamp, utc_now

FINAL = frozenset({"Completed", "Failed", "Canceled"})


@dataclass
class Change:
    """A change of state that comes by itself: after so many polls, or so many seconds, whichever is asked for."""

    status: str
    polls: int | None
    at: float | None
    action: Callable[[], None] | None

    def due(self, polls: int) -> bool:
        """Whether it is time."""
        if self.polls is not None:
            return polls > self.polls
        return self.at is not None and time.monotonic() >= self.at


@dataclass
class Run:
    """One run. `run_type` is ``hyperdrive`` for the parent of a cross-validation."""

    run_id: str
    experiment: str
    experiment_id: str
    number: int
    parent: Run | None = None
    status: str = "Running"
    tags: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    run_type: str = "azureml.scriptrun"
    display_name: str | None = None
    description: str | None = None
    target: str | None = None
    script: str | None = None
    run_definition: Json | None = None
    error: Json | None = None
    created: dt.datetime = field(default_factory=utc_now)
    started: dt.datetime | None = None
    ended: dt.datetime | None = None
    log_files: list[str] = field(default_factory=list)
    cancel_uri: str | None = None
    on_cancel: Callable[[], None] | None = None
    polls: int = 0
    _changes: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.uuid = str(uuid.uuid4())
        self.set_status(self.status)

    @property
    def container(self) -> str:
        """The name of the container of the run's artifacts (origin ``ExperimentRun``)."""
        return f"dcid.{self.run_id}"

    @property
    def root(self) -> Run:
        """The run that has no parent."""
        return self if self.parent is None else self.parent.root

    def set_status(self, status: str, error: str | None = None) -> None:
        """Change the state now; `error` is what a failed run's details say."""
        self.status = status
        if status not in ("NotStarted", "Queued", "Preparing") and self.started is None:
            self.started = utc_now()
        if status in FINAL and self.ended is None:
            self.ended = utc_now()
        if error is not None:
            self.set_error("UserError", error)

    def set_error(self, code: str, message: str) -> None:
        """What the run's details say about its failure."""
        self.error = {"error": {"code": code, "message": message, "details": []}}

    def later(
        self,
        status: str,
        *,
        polls: int | None = None,
        seconds: float | None = None,
        action: Callable[[], None] | None = None,
    ) -> None:
        """Change the state when clients have asked `polls` more times, or `seconds` from now.

        `action` is called just before, to add what the run leaves behind (tags, artifacts). Changes come in the order
        in which they were asked for.

        Raises:
            ValueError: Neither or both were given.
        """
        if (polls is None) == (seconds is None):
            raise ValueError("Give polls or seconds, one of them")
        if polls is not None:
            earlier = [change.polls for change in self._changes if change.polls is not None]
            polls += max([self.polls, *earlier])
        self._changes.append(Change(status, polls, None if seconds is None else time.monotonic() + seconds, action))

    def observe(self) -> None:
        """A client asks for the state: changes that are due come first."""
        self.polls += 1
        while self._changes and self._changes[0].due(self.polls):
            change = self._changes.pop(0)
            if change.action is not None:
                change.action()
            self.set_status(change.status)

    def to_json(self) -> Json:
        """As the history service writes it."""
        return {
            "runNumber": self.number,
            "rootRunId": self.root.run_id,
            "experimentId": self.experiment_id,
            "createdUtc": timestamp(self.created),
            "createdBy": {"userObjectId": "user", "userName": "Test User"},
            "userId": "user",
            "runId": self.run_id,
            "runUuid": self.uuid,
            "parentRunId": None if self.parent is None else self.parent.run_id,
            "parentRunUuid": None if self.parent is None else self.parent.uuid,
            "rootRunUuid": self.root.uuid,
            "status": self.status,
            "startTimeUtc": timestamp(self.started),
            "endTimeUtc": timestamp(self.ended),
            "heartbeatEnabled": False,
            "name": self.display_name,
            "displayName": self.display_name or self.run_id,
            "dataContainerId": self.container,
            "description": self.description,
            "hidden": False,
            "runType": self.run_type,
            "properties": self.properties,
            "scriptName": self.script,
            "target": self.target,
            "tags": self.tags,
            "runDefinition": None,
            "cancelUri": self.cancel_uri,
            "error": self.error,
            "warnings": None,
        }

    def details(self, log_uris: Mapping[str, str]) -> Json:
        """As the history service writes a run's details; `log_uris` opens each log file."""
        return {
            "runId": self.run_id,
            "target": self.target,
            "status": self.status,
            "startTimeUtc": timestamp(self.started),
            "endTimeUtc": timestamp(self.ended),
            "services": {},
            "error": self.error,
            "warnings": [],
            "properties": self.properties,
            "inputDatasets": [],
            "outputDatasets": [],
            "runDefinition": self.run_definition or {},
            "logFiles": dict(log_uris),
        }
