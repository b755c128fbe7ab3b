"""What an exception of the SDK means, and the one line that a person is told about it.

The SDK raises exceptions of a dozen libraries, often one inside another, and their texts may hold secrets. They are
told apart here by what they carry, so that this module needs none of those libraries.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import Enum

from innereye_azureml.scrubbing import scrub
from innereye_core.errors import RegistryError

READER = "Reader"
DATA_SCIENTIST = "AzureML Data Scientist"
"""Built-in roles of AzureML workspaces that are enough to read, and to read and write."""


class Failure(Enum):
    """Kinds of failures."""

    LOGIN = "login"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not found"
    CONFLICT = "conflict"
    THROTTLED = "throttled"
    BROKEN = "broken"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"


TRANSIENT = frozenset({Failure.THROTTLED, Failure.BROKEN, Failure.UNREACHABLE})
"""Failures that may pass, and of which nobody knows whether the request was carried out."""


class ServiceError(RegistryError):
    """AzureML refuses or cannot be reached (exit code 5)."""

    def __init__(self, message: str, failure: Failure) -> None:
        super().__init__(message)
        self.failure = failure


def service_error(error: BaseException, doing: str, role: str, missing: str | None) -> ServiceError:
    """The error to raise instead of one of the SDK's.

    Args:
        error: what the SDK raised.
        doing: what was tried, after "cannot": ``register Prostate``.
        role: the built-in role that it takes.
        missing: what to say instead where AzureML answers that there is no such thing.
    """
    failure, status = _classified(error)
    if failure is Failure.NOT_FOUND and missing is not None:
        return ServiceError(missing, failure)
    number = "" if status is None else f" ({status})"
    said = "" if failure in TRANSIENT else _quoted(error)
    return ServiceError(f"cannot {doing}: {_REASONS[failure].format(number=number, said=said, role=role)}", failure)


def detail(error: BaseException) -> str:
    """Everything that the error and its causes say, in one line, without secrets."""
    return scrub(" < ".join(f"{type(each).__name__}: {' '.join(_text(each).split())}" for each in _chain(error)))


_REASONS = {
    Failure.LOGIN: (
        "AzureML does not accept the login{number}{said}; renew the token or secret, and check that it is of the "
        "workspace's tenant"
    ),
    Failure.FORBIDDEN: (
        "not permitted{number}{said}; ask for the role {role!r} on the workspace, and check that the network rules of "
        "workspace and storage account let you in"
    ),
    Failure.NOT_FOUND: "AzureML does not have it{number}{said}; check the names",
    Failure.CONFLICT: "AzureML has something of this name already{number}{said}; try again",
    Failure.THROTTLED: "AzureML gets too many requests{number}; try again in some minutes",
    Failure.BROKEN: "AzureML fails{number}; try again later",
    Failure.UNREACHABLE: "AzureML cannot be reached; check the network and HTTPS_PROXY, and try again",
    Failure.REFUSED: "AzureML refuses{number}{said}; run again with --debug for all that it says",
}

_STATUSES = {
    401: Failure.LOGIN,
    403: Failure.FORBIDDEN,
    404: Failure.NOT_FOUND,
    408: Failure.UNREACHABLE,
    409: Failure.CONFLICT,
    429: Failure.THROTTLED,
}

_BY_TEXT = (
    (re.compile(r"ModelNotFound|ResourceNotFound|You don't have access to \S+ subscription"), Failure.NOT_FOUND),
    (re.compile(r"(?i)resource conflict|already exists"), Failure.CONFLICT),
    (re.compile(r"AADSTS\d|az login|Could not retrieve user token"), Failure.LOGIN),
)

_BY_TYPE = (
    (re.compile(r"DecodeError|AuthenticationException|ClientAuthenticationError|Msal\w*Error"), Failure.LOGIN),
    (
        re.compile(r"ServiceRe(quest|sponse)\w*Error|ClientRequestError|IncompleteReadError|\w*Timeout\w*|SSLError"),
        Failure.UNREACHABLE,
    ),
)

_STATUS_IN_TEXT = re.compile(r'(?:Response Code: |"status_code": |\bCode: )(\d{3})\b')
_MESSAGE_IN_TEXT = re.compile(r'"message": ("(?:[^"\\]|\\.)*")')
_SAID_LENGTH = 200


def _classified(error: BaseException) -> tuple[Failure, int | None]:
    """The kind of a failure and its HTTP status, where there is one; the first in the chain that tells decides."""
    chain = list(_chain(error))
    for each in chain:
        status = _status(each)
        if status is not None and status >= 400:
            return _STATUSES.get(status, Failure.BROKEN if status >= 500 else Failure.REFUSED), status
    for each in chain:
        for pattern, failure in _BY_TEXT:
            if pattern.search(_text(each)):
                return failure, None
        for pattern, failure in _BY_TYPE:
            if pattern.fullmatch(type(each).__name__):
                return failure, None
        if isinstance(each, ConnectionError) or type(each).__module__.partition(".")[0] in ("requests", "urllib3"):
            return Failure.UNREACHABLE, None
    return Failure.REFUSED, None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was made of, and what it was raised because of; each once."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [getattr(each, "inner_exception", None), each.__cause__, each.__context__, *each.args]


def _status(error: BaseException) -> int | None:
    """The HTTP status that an exception carries: its own, its response's, or the one in its text."""
    for holder in (error, getattr(error, "response", None)):
        status = getattr(holder, "status_code", None)
        if isinstance(status, int):
            return status
    match = _STATUS_IN_TEXT.search(_text(error))
    return None if match is None else int(match[1])


def _text(error: BaseException) -> str:
    """What an exception says; some of the SDK's raise another when they are asked."""
    try:
        message = getattr(error, "message", None)
        return message if isinstance(message, str) and message else str(error)
    except Exception:
        return ""


def _quoted(error: BaseException) -> str:
    """What the service said, for the message; empty where it said nothing that helps."""
    chain = list(_chain(error))
    messages = [*map(_message_of_answer, chain), *(_text(each).strip().partition("\n")[0] for each in chain)]
    said = next((message for message in messages if message and not message.endswith(":")), "")
    said = " ".join(scrub(said).split()).rstrip(".")
    return f": {said[:_SAID_LENGTH]}…" if len(said) > _SAID_LENGTH else f": {said}" if said else ""


def _message_of_answer(error: BaseException) -> str:
    """The message in the service's answer that an exception carries."""
    quoted = _MESSAGE_IN_TEXT.search(_text(error))
    if quoted is not None:
        return str(json.loads(quoted[1], strict=False))
    body = getattr(getattr(error, "response", None), "text", None)
    try:
        document = json.loads(body) if isinstance(body, str) else None
    except ValueError:
        return ""
    inner = document.get("error", document) if isinstance(document, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else None
    return message if isinstance(message, str) else ""
