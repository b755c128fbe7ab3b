"""What passes between the sockets and the routes: requests, answers and refusals."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

Json = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """One HTTP request, read to its end.

    `path` is still percent-encoded; names of headers are in lower case.
    """

    method: str
    host: str
    path: str
    query_string: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters, decoded."""
        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    @property
    def url(self) -> str:
        """Host, path and query, as faults match them and reports show them."""
        return f"{self.host}{self.path}" + (f"?{self.query_string}" if self.query_string else "")

    def json(self) -> Any:
        """The body as JSON; an empty body is an empty object.

        Raises:
            Refusal: The body is no JSON (400).
        """
        try:
            return json.loads(self.body) if self.body else {}
        except ValueError as error:
            raise Refusal(400, "BadRequest", f"The body is not JSON: {error}") from None


@dataclass(frozen=True)
class Response:
    """One answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """The service answers with an error; each service has its own way to write it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def answer(document: Any, status: int = 200) -> Response:
    """A JSON answer."""
    body = json.dumps(document).encode()
    return Response(status, body, {"Content-Type": "application/json; charset=utf-8"})


def utc_now() -> dt.datetime:
    """The time now."""
    return dt.datetime.now(dt.UTC)


def timestamp(moment: dt.datetime | None) -> str | None:
    """A time as the services write it."""
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")
