"""Routes of model management: assets and models."""

from __future__ import annotations

import json
from collections.abc import Mapping

from azureml_server.messages import Refusal, Response, answer
from azureml_server.models import Model
from azureml_server.router import Call, Router


def _model_error(refusal: Refusal) -> Response:
    body = {
        "code": refusal.code,
        "statusCode": refusal.status,
        "message": refusal.message,
        "details": [{"code": refusal.code, "message": refusal.message}],
        "correlation": {"RequestId": "0"},
    }
    return Response(refusal.status, json.dumps(body).encode(), {"Content-Type": "application/json; charset=utf-8"})


models = Router("/modelmanagement/v1.0{scope}", write_error=_model_error)


@models.route("POST", "/assets")
def create_asset(call: Call) -> Response:
    """Make an asset of artifacts."""
    return answer(call.workspace.registry.create_asset(call.request.json()).to_json())


@models.route("GET", "/assets/{asset}")
def get_asset(call: Call) -> Response:
    """One asset."""
    return answer(call.workspace.registry.asset(call["asset"]).to_json())


@models.route("POST", "/models")
def register(call: Call) -> Response:
    """The next version of a model."""
    return answer(call.workspace.registry.register(call.request.json()).to_json())


@models.route("GET", "/models")
def list_models(call: Call) -> Response:
    """Models that the query asks for, newest first, in pages of ``count``; ``nextLink`` goes on at ``$skipToken``."""
    query = call.request.query
    found = [model for model in call.workspace.registry.models() if _matches(model, query)]
    if query.get("latestVersionOnly", "").lower() == "true":
        latest: dict[str, Model] = {}
        for model in found:
            if model.name not in latest or latest[model.name].version < model.version:
                latest[model.name] = model
        found = [model for model in found if latest[model.name] is model]
    start = int(query.get("$skipToken") or 0)
    count = min(int(query.get("count") or call.workspace.page_size), call.workspace.page_size)
    end = start + count
    more = f"https://{call.request.host}{call.request.path}?$skipToken={end}" if end < len(found) else None
    return answer({"value": [model.to_json() for model in found[start:end]], "nextLink": more})


def _matches(model: Model, query: Mapping[str, str]) -> bool:
    return (
        query.get("name") in (None, model.name)
        and query.get("runId") in (None, model.run_id)
        and _has(model.tags, query.get("tags"))
        and _has(model.properties, query.get("properties"))
        and query.get("framework") in (None, model.document.get("framework"))
    )


def _has(values: Mapping[str, str], asked: str | None) -> bool:
    """Whether `values` has all that is `asked`: ``key`` or ``key=value``, between commas."""
    for term in (asked or "").split(","):
        key, equals, value = term.partition("=")
        if term and (key not in values or (equals and values[key] != value)):
            return False
    return True


@models.route("GET", "/models/{model}")
def get_model(call: Call) -> Response:
    """One model."""
    return answer(call.workspace.registry.get(call["model"]).to_json())


@models.route("PATCH", "/models/{model}")
def patch_model(call: Call) -> Response:
    """Change tags, properties or the description."""
    return answer(call.workspace.registry.patch(call["model"], call.request.json()).to_json())


@models.route("DELETE", "/models/{model}")
def delete_model(call: Call) -> Response:
    """Delete a model."""
    call.workspace.registry.delete(call["model"])
    return Response(200)
