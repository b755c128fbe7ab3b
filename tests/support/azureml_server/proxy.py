"""The sockets: an HTTP server that is also a CONNECT proxy, and that ends TLS for every host itself."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import urlsplit

from azureml_server.certificates import Authority
from azureml_server.faults import Fault
from azureml_server.messages import Request, Response

CHUNK = 1 << 16


class Application(Protocol):
    """What the listener needs: answers."""

    authority: Authority

    def before_body(self, request: Request) -> Fault | None:
        """The fault that strikes before the request's body is read."""

    def respond(self, request: Request) -> tuple[Response | None, Fault | None]:
        """The answer, None to close the connection without one, and the fault that shapes it."""


class Listener(ThreadingHTTPServer):
    """Listens on a free port of 127.0.0.1. Connections outlive requests, and end with the listener."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, application: Application, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.application = application
        self._sockets: set[socket.socket] = set()
        self._sockets_lock = threading.Lock()

    def opened(self, connection: socket.socket) -> None:
        """A connection that `close_all` has to end."""
        with self._sockets_lock:
            self._sockets.add(connection)

    def closed(self, connection: socket.socket) -> None:
        """A connection that has ended."""
        with self._sockets_lock:
            self._sockets.discard(connection)

    def close_all(self) -> None:
        """End every connection that is open."""
        with self._sockets_lock:
            sockets = list(self._sockets)
        for connection in sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Clients may go away at any time: that is no news, but an error of our own is."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Reads requests from one connection, through a tunnel once a client has asked for one."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener
    tunnel: str | None = None

    def setup(self) -> None:
        super().setup()
        self.server.opened(self.connection)

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        self.server.closed(self.connection)
        with contextlib.suppress(OSError):
            self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are recorded by the application."""

    def do_CONNECT(self) -> None:
        """Open a tunnel that ends here."""
        self.tunnel = self.path.rpartition(":")[0]
        self.send_response_only(200, "Connection established")
        self.end_headers()
        plain = self.connection
        try:
            context = self.server.application.authority.context(self.tunnel)
            self.connection = context.wrap_socket(plain, server_side=True)
        except OSError:  # such as a client that does not trust the authority
            self.close_connection = True
            return
        finally:
            self.server.closed(plain)
        self.server.opened(self.connection)
        self.rfile = self.connection.makefile("rb", self.rbufsize)
        self.wfile = self.connection.makefile("wb", CHUNK)
        self.close_connection = False

    def _answer(self) -> None:
        request = self._request(b"")
        fault = self.server.application.before_body(request)
        if fault is not None:
            time.sleep(fault.delay_s)
            self._hang_up()
            return
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:  # the client died: what it did not finish to say does not happen
            self._hang_up()
            return
        response, fault = self.server.application.respond(self._request(body))
        if response is None:
            self._hang_up()
            return
        self._send(response, fault)

    def _request(self, body: bytes) -> Request:
        target = urlsplit(self.path)
        host = self.tunnel or target.hostname or (self.headers.get("Host") or "").partition(":")[0]
        headers = {name.lower(): value for name, value in self.headers.items()}
        # urlsplit would take a leading double slash for a host; only proxied plain HTTP gives one.
        path, _, query = self.path.partition("?") if self.path.startswith("/") else (target.path, "", target.query)
        return Request(self.command, host, path, query, headers, body)

    def _send(self, response: Response, fault: Fault | None) -> None:
        self.send_response_only(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            body = memoryview(response.body)
            if fault is not None and fault.truncate is not None:
                body = body[: int(len(body) * fault.truncate)]
            self._write(body, None if fault is None else fault.bytes_per_s)
        self.wfile.flush()
        if fault is not None and fault.truncate is not None:
            self._hang_up()

    def _write(self, body: memoryview, bytes_per_s: float | None) -> None:
        if bytes_per_s is None:
            self.wfile.write(body)
            return
        step = max(1, int(bytes_per_s / 20))
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            self.wfile.flush()
            time.sleep(step / bytes_per_s)

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815
