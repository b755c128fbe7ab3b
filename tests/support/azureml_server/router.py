"""Tables of routes: which function answers which method and path of which service, and who may ask."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from azureml_server.identity import TokenKind
from azureml_server.messages import Refusal, Request, Response
from azureml_server.workspace import Workspace


@dataclass(frozen=True)
class Call:
    """A request on its way to a route: `parts` are the decoded variables of the path."""

    request: Request
    workspace: Workspace
    parts: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.parts[name]


Handler = Callable[[Call], Response]
WriteError = Callable[[Refusal], Response]


@dataclass(frozen=True)
class Route:
    """One row of a table."""

    method: str
    template: str
    pattern: re.Pattern[str]
    handler: Handler


Found = tuple[Route, dict[str, str]]
"""A route, and the variables of its path."""


def rest_error(refusal: Refusal) -> Response:
    """An error as most services write it."""
    body = {
        "error": {
            "code": refusal.code,
            "message": refusal.message,
            "details": [],
            "innerError": None,
        },
        "correlation": {"operation": "0", "request": "0"},
        "environment": "test",
        "location": "loopback",
    }
    return Response(refusal.status, json.dumps(body).encode(), {"Content-Type": "application/json; charset=utf-8"})


class Router:
    """The routes of one service. A template's ``{name}`` takes one segment of the path, ``{name*}`` all that follow.

    ``{scope}`` stands for the workspace's own subscription, group and name, in any case; routes under another
    workspace's scope answer 404.
    """

    def __init__(
        self,
        prefix: str = "",
        *,
        tokens: tuple[TokenKind, ...] = ("aad", "run"),
        write_error: WriteError = rest_error,
    ) -> None:
        self.prefix = prefix
        self.tokens = tokens
        self.write_error = write_error
        self.routes: list[Route] = []

    def route(self, method: str, template: str) -> Callable[[Handler], Handler]:
        """Decorate the function that answers `method` on `template`."""

        def add(handler: Handler) -> Handler:
            whole = self.prefix + template
            self.routes.append(Route(method, whole, _pattern(whole), handler))
            return handler

        return add

    def find(self, request: Request) -> Found | None:
        """The route for `request`, and the variables of its path."""
        for route in self.routes:
            match = route.pattern.fullmatch(request.path) if route.method == request.method else None
            if match:
                return route, {name: unquote(value) for name, value in match.groupdict().items()}
        return None

    def answer(self, route: Route, parts: Mapping[str, str], request: Request, workspace: Workspace) -> Response:
        """Carry out the request."""
        try:
            if self.tokens:
                workspace.identity.check(request.headers.get("authorization", ""), self.tokens)
            _check_scope(parts, workspace)
            with workspace.lock:
                return route.handler(Call(request, workspace, parts))
        except Refusal as refusal:
            return self.write_error(refusal)


SCOPE = (
    r"/subscriptions/(?P<subscription_>[^/]+)/resource[gG]roups/(?P<group_>[^/]+)"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/(?P<workspace_>[^/]+)"
)


def _pattern(template: str) -> re.Pattern[str]:
    parts = []
    for piece in re.split(r"(\{\w+\*?\})", template):
        if piece == "{scope}":
            parts.append(SCOPE)
        elif piece.startswith("{"):
            name = piece.strip("{}")
            parts.append(f"(?P<{name[:-1]}>.+)" if name.endswith("*") else f"(?P<{name}>[^/]+)")
        else:
            parts.append(re.escape(piece))
    return re.compile("".join(parts))


def _check_scope(parts: Mapping[str, str], workspace: Workspace) -> None:
    if "workspace_" not in parts:
        return
    scope = workspace.scope
    asked = (parts["subscription_"].lower(), parts["group_"].lower(), parts["workspace_"].lower())
    if asked != (scope.subscription.lower(), scope.resource_group.lower(), scope.name.lower()):
        raise Refusal(
            404, "ResourceNotFound", f"The workspace {parts['workspace_']!r} in {parts['group_']!r} was not found."
        )
