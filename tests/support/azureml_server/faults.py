"""Faults that a test asks for: which requests they strike, and what happens to those."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field

from azureml_server.messages import Request


@dataclass
class Fault:
    """What goes wrong with the requests that match, from the `after`+1st on, `times` times.

    `path` is a regular expression, searched in ``host/path?query`` (paths are percent-encoded); `body` is one
    searched in the request's body. Exactly what happens is a combination of:

    - `status`: the service answers this status. The request is not carried out, unless `applied`.
    - `drop`: the connection closes: after the request's head, before its body is read, and nothing is carried out.
      With `applied`, the request is read and carried out, and then the connection closes without an answer.
    - `truncate`: the request is carried out, but only this fraction of the answer's body is sent before the connection
      closes (the head promised all of it).
    - `delay_s`: the answer comes later. Alone, it only slows the request down.
    - `bytes_per_s`: the answer's body is sent this slowly.

    `code` and `message` are what an answer with `status` says. `seen` counts the requests that match, `struck` those
    that were struck.
    """

    path: str
    method: str | None = None
    body: str | None = None
    status: int | None = None
    code: str = "InjectedFault"
    message: str = "The test asked for this fault."
    drop: bool = False
    applied: bool = False
    truncate: float | None = None
    delay_s: float = 0.0
    bytes_per_s: float | None = None
    times: int | None = 1
    after: int = 0
    seen: int = field(default=0, init=False)
    struck: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Check that the combination means something.

        Raises:
            ValueError: It does not.
        """
        if self.drop and (self.status is not None or self.truncate is not None):
            raise ValueError("A dropped connection has no answer: give drop, or status, or truncate")
        if not (self.drop or self.status or self.truncate is not None or self.delay_s or self.bytes_per_s):
            raise ValueError("A fault needs one of status, drop, truncate, delay_s and bytes_per_s")
        if self.drop and not self.applied and self.body is not None:
            raise ValueError("A request that is dropped before its body is read cannot be chosen by its body")

    @property
    def needs_body(self) -> bool:
        """Whether the request's body must be read before the fault can strike."""
        return not self.drop or self.applied

    def matches(self, request: Request) -> bool:
        """Whether this fault is about `request`, leaving counts aside."""
        return (
            (self.method is None or self.method == request.method)
            and re.search(self.path, request.url) is not None
            and (self.body is None or re.search(self.body.encode(), request.body) is not None)
        )


class Faults:
    """The faults of one server; empty at first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Let `fault` strike from now on; the first that was added strikes where several match."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """All is well from now on."""
        with self._lock:
            self._faults.clear()

    def before_body(self, request: Request) -> Fault | None:
        """The fault that strikes `request` before its body is read."""
        return self._strike(request, needs_body=False)

    def with_body(self, request: Request) -> Fault | None:
        """The fault that strikes `request` now that it has been read."""
        return self._strike(request, needs_body=True)

    def _strike(self, request: Request, needs_body: bool) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.needs_body != needs_body or not fault.matches(request):
                    continue
                fault.seen += 1
                if fault.seen > fault.after and (fault.times is None or fault.struck < fault.times):
                    fault.struck += 1
                    return fault
        return None
