"""Routes of the artifact service."""

from __future__ import annotations

from azureml_server.artifacts import Artifact
from azureml_server.messages import Json, Refusal, Response, answer
from azureml_server.router import Call, Router
from azureml_server.workspace import Workspace

BATCH_LIMIT = 50

artifacts = Router("/artifact/v2.0{scope}/artifacts")


def _content_information(workspace: Workspace, artifact: Artifact, writable: bool = False) -> Json:
    """Where an artifact's bytes are."""
    return {
        "contentUri": workspace.artifacts.content_uri(artifact, writable),
        "origin": artifact.origin,
        "container": artifact.container,
        "path": artifact.path,
    }


def _page(call: Call, items: list[Json]) -> Response:
    """One page of a listing, which goes on at a continuation token."""
    start = int(call.request.query.get("continuationToken") or 0)
    end = start + call.workspace.page_size
    return answer(
        {"value": items[start:end], "continuationToken": str(end) if end < len(items) else None, "nextLink": None}
    )


@artifacts.route("POST", "/batch/metadata/{origin}/{container}")
def create(call: Call) -> Response:
    """Make artifacts without content; those that exist already are errors, the others are made all the same."""
    workspace = call.workspace
    paths = [str(entry["path"]) for entry in call.request.json().get("paths") or []]
    if len(paths) > BATCH_LIMIT:
        raise Refusal(400, "UserError", f"A batch has at most {BATCH_LIMIT} artifacts.")
    made: dict[str, Json] = {}
    information: dict[str, Json] = {}
    errors: dict[str, Json] = {}
    for path in paths:
        try:
            artifact = workspace.artifacts.create(call["origin"], call["container"], path)
        except Refusal as refusal:
            errors[path] = {"error": {"code": refusal.code, "message": refusal.message}}
        else:
            made[path] = artifact.to_json()
            information[path] = _content_information(workspace, artifact, writable=True)
    return answer({"artifacts": made, "artifactContentInformation": information, "errors": errors})


@artifacts.route("GET", "/prefix/contentinfo/{origin}/{container}/{prefix*}")
def by_prefix(call: Call) -> Response:
    """Where the bytes of all artifacts under a prefix are."""
    found = call.workspace.artifacts.listing(call["origin"], call["container"], call["prefix"])
    return _page(call, [_content_information(call.workspace, artifact) for artifact in found])


@artifacts.route("GET", "/contentinfo/{origin}/{container}/{path*}")
def one(call: Call) -> Response:
    """Where an artifact's bytes are."""
    artifact = call.workspace.artifacts.get(call["origin"], call["container"], call["path"])
    return answer(_content_information(call.workspace, artifact))


@artifacts.route("GET", "/write/{origin}/{container}/{path*}")
def writable(call: Call) -> Response:
    """A URI to write an artifact that exists."""
    artifact = call.workspace.artifacts.get(call["origin"], call["container"], call["path"])
    return answer(_content_information(call.workspace, artifact, writable=True))


@artifacts.route("DELETE", "/metadata/{origin}/{container}/{path*}")
def delete(call: Call) -> Response:
    """Delete an artifact; its content goes only with ``hardDelete``, and stays in the way of an upload otherwise."""
    hard = call.request.query.get("hardDelete", "").lower() == "true"
    call.workspace.artifacts.delete(call["origin"], call["container"], call["path"], with_content=hard)
    return answer(None)


@artifacts.route("GET", "/{origin}/{container}")
def listing(call: Call) -> Response:
    """All artifacts of a container."""
    found = call.workspace.artifacts.listing(call["origin"], call["container"])
    return _page(call, [artifact.to_json() for artifact in found])
