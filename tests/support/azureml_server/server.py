"""The server: start and stop it, hand it faults, look at what clients asked, run clients against it."""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from azureml_server import certificates
from azureml_server.blobs import ACCOUNT_HOST
from azureml_server.clients import Clients
from azureml_server.faults import Fault, Faults
from azureml_server.identity import Scope
from azureml_server.jobs import run_job_locally
from azureml_server.messages import Refusal, Request, Response
from azureml_server.proxy import Listener
from azureml_server.router import Found, Router, rest_error
from azureml_server.routes_artifacts import artifacts
from azureml_server.routes_blobs import blobs
from azureml_server.routes_history import history
from azureml_server.routes_login import ARM_HOST, LOGIN_HOST, arm, discovery, login
from azureml_server.routes_models import models
from azureml_server.routes_submission import computes, content, environments, execution
from azureml_server.workspace import Job, Workspace

TELEMETRY_HOSTS = ("dc.services.visualstudio.com", "dc.applicationinsights.azure.com")
UNKEPT_HEADERS = ("authorization",)


@dataclass(frozen=True)
class Recorded:
    """A request at a time of the monotonic clock, and its answer; `status` is None where the connection was dropped.

    Authorization headers are not kept here, nor the bodies of blobs, which are in the workspace.
    """

    at: float
    request: Request
    status: int | None

    def __str__(self) -> str:
        return f"{self.request.method} https://{self.request.url} → {self.status}"


class AzureMLServer(Clients):
    """A loopback AzureML, for the unmodified SDK in other processes.

    State is in `workspace`; it stays until `stop`, whatever clients come and go. `faults` makes things go wrong.
    Clients are run with `python` and `innereye`, or with the environment variables of `client_environment`.
    """

    def __init__(self, scope: Scope | None = None, port: int = 0) -> None:
        self.workspace = Workspace(scope)
        self.faults = Faults()
        self.authority = certificates.authority()
        self.requests: list[Recorded] = []
        self.unknown: list[str] = []
        """Requests that no route knows."""
        self.broken: list[str] = []
        """Requests that a route failed on, with the traceback."""
        self._lock = threading.Lock()
        self._services = (models, history, artifacts, discovery, computes, content, environments, execution)
        self._listener = Listener(self, port)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True)
        self._folder = Path(tempfile.mkdtemp(prefix="azureml-server-"))
        super().__init__(self.workspace, self.url, self.authority.certificate, self._folder)

    @property
    def url(self) -> str:
        """Where it listens: the value for HTTPS_PROXY."""
        return f"http://127.0.0.1:{self._listener.server_address[1]}"

    def start(self) -> None:
        """Listen."""
        self._thread.start()

    def stop(self) -> None:
        """End all connections and jobs, and delete the folder of the clients."""
        self.kill_all()
        self._listener.shutdown()
        self._listener.close_all()
        self._listener.server_close()
        self._thread.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run_job_locally(self, job: Job, python: str | Path = sys.executable) -> int:
        """Run a submitted job's script for real (see `jobs`): a value for ``workspace.on_submit``."""
        return run_job_locally(self, self.workspace, job, python)

    # What clients asked

    def asked(self, method: str, path: str) -> list[Recorded]:
        """Requests of a method whose ``host/path?query`` contains `path`."""
        with self._lock:
            return [
                recorded
                for recorded in self.requests
                if recorded.request.method == method and path in recorded.request.url
            ]

    def where_sent(self, text: str) -> list[str]:
        """Where `text` is in what clients sent, apart from Authorization headers and from what they sent to log in.

        For tests that no secret leaves the machine: the answer is a list of requests and blobs, and should be empty.
        """
        needle = text.encode()
        with self._lock:
            recorded = [record for record in self.requests if record.request.host != LOGIN_HOST]
        found = [
            str(record)
            for record in recorded
            if text in record.request.url
            or needle in record.request.body
            or any(text in value for value in record.request.headers.values())
        ]
        with self.workspace.lock:
            found += [f"blob {name}" for name, kept in self.workspace.blobs.contents().items() if needle in kept]
        return found

    # What the listener asks

    def before_body(self, request: Request) -> Fault | None:
        """The fault that strikes before the request's body is read; it is recorded as a dropped request."""
        fault = self.faults.before_body(request)
        if fault is not None:
            self._record(request, None)
        return fault

    def respond(self, request: Request) -> tuple[Response | None, Fault | None]:
        """Carry the request out, or let a fault have it."""
        router, found = self._service(request)
        fault = self.faults.with_body(request)
        if fault is None:
            response = self._carry_out(router, found, request)
            self._record(request, response.status)
            return response, None
        time.sleep(fault.delay_s)
        if fault.applied or fault.status is None:
            response = self._carry_out(router, found, request)
        if fault.status is not None:
            write_error = rest_error if router is None else router.write_error
            response = write_error(Refusal(fault.status, fault.code, fault.message))
        self._record(request, None if fault.drop else response.status)
        return (None if fault.drop else response), fault

    def _carry_out(self, router: Router | None, found: Found | None, request: Request) -> Response:
        if router is not None and found is not None:
            try:
                return router.answer(*found, request, self.workspace)
            except Exception:
                self.broken.append(f"{request.method} https://{request.url}\n{traceback.format_exc()}")
                return router.write_error(Refusal(500, "InternalError", "The test server's own route is broken."))
        if request.host in TELEMETRY_HOSTS:
            return Response(200, b'{"itemsReceived": 0, "itemsAccepted": 0, "errors": []}')
        self.unknown.append(f"{request.method} https://{request.url}")
        return rest_error(
            Refusal(501, "NotImplemented", f"The test server does not know {request.method} {request.url}")
        )

    def _service(self, request: Request) -> tuple[Router | None, Found | None]:
        """The router of the request's host and path, and the route in it."""
        routers: tuple[Router, ...]
        match request.host:
            case host if host == LOGIN_HOST:
                routers = (login,)
            case host if host == ARM_HOST:
                routers = (arm, computes)
            case host if host == ACCOUNT_HOST:
                routers = (blobs,)
            case host if host == f"{self.workspace.scope.location}.api.azureml.ms":
                routers = self._services
            case _:
                routers = ()
        for router in routers:
            found = router.find(request)
            if found is not None:
                return router, found
        return (routers[0] if routers else None), None

    def _record(self, request: Request, status: int | None) -> None:
        keep_body = request.host != ACCOUNT_HOST
        headers = {name: value for name, value in request.headers.items() if name not in UNKEPT_HEADERS}
        kept = Request(
            request.method,
            request.host,
            request.path,
            request.query_string,
            headers,
            request.body if keep_body else b"",
        )
        with self._lock:
            self.requests.append(Recorded(time.monotonic(), kept, status))


@contextmanager
def serving(scope: Scope | None = None, port: int = 0) -> Iterator[AzureMLServer]:
    """A server that runs inside the ``with``."""
    server = AzureMLServer(scope, port)
    server.start()
    try:
        yield server
    finally:
        server.stop()
