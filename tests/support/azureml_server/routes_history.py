"""Routes of the history service: experiments, runs, their tags, states, children and details."""

from __future__ import annotations

import datetime as dt

from azureml_server.artifacts import Artifact
from azureml_server.filters import parse
from azureml_server.identity import TOKEN_LIFETIME_S
from azureml_server.messages import Json, Refusal, Response, answer, timestamp, utc_now
from azureml_server.router import Call, Router
from azureml_server.runs import FINAL, Run
from azureml_server.workspace import RUN_ORIGIN

history = Router("/history/v1.0{scope}")


def _experiment(call: Call, name: str) -> Json:
    if name not in call.workspace.experiments:
        raise Refusal(404, "UserError", f"Experiment {name} was not found")
    return {
        "experimentId": call.workspace.experiments[name],
        "name": name,
        "description": None,
        "createdUtc": "2020-01-01T00:00:00.000000+00:00",
        "tags": {},
        "archivedTime": None,
    }


@history.route("GET", "/experiments/{experiment}")
def get_experiment(call: Call) -> Response:
    """An experiment by name."""
    return answer(_experiment(call, call["experiment"]))


@history.route("GET", "/experimentids/{experiment_id}")
def get_experiment_by_id(call: Call) -> Response:
    """An experiment by id."""
    return answer(_experiment(call, _experiment_name(call)))


@history.route("POST", "/experiments/{experiment}")
def create_experiment(call: Call) -> Response:
    """Make an experiment."""
    call.workspace.experiment_id(call["experiment"])
    return answer(_experiment(call, call["experiment"]))


def _experiment_name(call: Call) -> str:
    """The name of the experiment of the path."""
    names = {experiment_id: name for name, experiment_id in call.workspace.experiments.items()}
    name = call.parts.get("experiment") or names.get(call.parts.get("experiment_id", ""))
    if name not in call.workspace.experiments:
        raise Refusal(404, "UserError", "The experiment was not found")
    return name


def _run(call: Call) -> Run:
    """The run of the path, which must be in the experiment of the path."""
    run = call.workspace.run(call["run"])
    if call.parts.get("experiment") not in (None, run.experiment):
        raise Refusal(404, "UserError", f"Run {run.run_id} was not found in experiment {call['experiment']}")
    if call.parts.get("experiment_id") not in (None, run.experiment_id):
        raise Refusal(404, "UserError", f"Run {run.run_id} was not found in experiment {call['experiment_id']}")
    return run


@history.route("GET", "/experimentids/{experiment_id}/runs/{run}")
@history.route("GET", "/experiments/{experiment}/runs/{run}")
@history.route("GET", "/runs/{run}")
def get_run(call: Call) -> Response:
    """A run."""
    run = _run(call)
    run.observe()
    return answer(run.to_json())


@history.route("PATCH", "/experimentids/{experiment_id}/runs/{run}")
@history.route("PATCH", "/experiments/{experiment}/runs/{run}")
def patch_run(call: Call) -> Response:
    """Change a run: tags and properties are merged; a property that exists cannot be changed. Or make a new run."""
    document = call.request.json()
    if call["run"] not in call.workspace.runs:
        return answer(_create(call, call["run"], document).to_json())
    run = _run(call)
    changed = [
        key for key, value in (document.get("properties") or {}).items() if run.properties.get(key, value) != value
    ]
    if changed:
        raise Refusal(400, "UserError", f"The property {changed[0]} of run {run.run_id} exists and cannot be changed")
    _modify(run, document)
    return answer(run.to_json())


def _create(call: Call, run_id: str, document: Json) -> Run:
    parent = document.get("parentRunId")
    run = call.workspace.add_run(
        run_id,
        experiment=_experiment_name(call),
        parent=None if parent is None else call.workspace.run(parent),
        status=document.get("status") or "NotStarted",
        run_type=document.get("runType") or "azureml.scriptrun",
    )
    _modify(run, document)
    return run


def _modify(run: Run, document: Json) -> None:
    run.tags.update({name: value or "" for name, value in (document.get("tags") or {}).items()})
    added = (document.get("properties") or {}).items()
    run.properties.update({name: value for name, value in added if value is not None})
    run.description = document.get("description") or run.description
    run.display_name = document.get("displayName") or document.get("name") or run.display_name
    run.target = document.get("target") or run.target
    run.script = document.get("scriptName") or run.script


@history.route("DELETE", "/experiments/{experiment}/runs/{run}/tags")
def delete_tags(call: Call) -> Response:
    """Take tags away."""
    run = _run(call)
    for key in call.request.json():
        run.tags.pop(key, None)
    return answer(run.to_json())


@history.route("GET", "/experiments/{experiment}/runs/{run}/children")
def children(call: Call) -> Response:
    """A run's children, in pages."""
    found = call.workspace.children(_run(call))
    return _page(call, found, call.request.query.get("$continuationToken"), call.request.query.get("$top"))


@history.route("POST", "/experiments/{experiment}/runs:query")
def query_runs(call: Call) -> Response:
    """Runs of an experiment that match a filter, newest first, in pages."""
    document = call.request.json()
    matches = parse(document.get("filter"))
    found = [
        run
        for run in reversed(call.workspace.runs.values())
        if run.experiment == call["experiment"] and matches(run.to_json())
    ]
    return _page(call, found, document.get("continuationToken"), document.get("top"))


def _page(call: Call, runs: list[Run], token: str | None, top: str | int | None) -> Response:
    start = int(token or 0)
    end = start + min(int(top or call.workspace.page_size), call.workspace.page_size)
    more = str(end) if end < len(runs) else None
    for run in runs[start:end]:
        run.observe()
    return answer({"value": [run.to_json() for run in runs[start:end]], "continuationToken": more, "nextLink": None})


@history.route("GET", "/experiments/{experiment}/runs/{run}/details")
def details(call: Call) -> Response:
    """A run's details, with URIs of its log files."""
    run = _run(call)
    run.observe()
    logs = {
        path: call.workspace.artifacts.content_uri(Artifact(RUN_ORIGIN, run.container, path)) for path in run.log_files
    }
    return answer(run.details(logs))


@history.route("POST", "/experiments/{experiment}/runs/{run}/events")
def event(call: Call) -> Response:
    """What a run says about itself: a change of state, an error, a sign of life."""
    run, document = _run(call), call.request.json()
    name = document["name"].removeprefix("Microsoft.MachineLearning.Run.")
    data = document.get("data") or {}
    match name:
        case "Start":
            run.set_status("Running")
        case "Completed" | "Failed" | "Canceled":
            if run.status not in FINAL:
                run.set_status(name)
        case "CancelRequested":
            run.set_status("CancelRequested")
        case "Error":
            error = data["ErrorResponse"]["error"]
            run.set_error(str(error["code"]), str(error["message"]))
        case "Heartbeat" | "Warning":
            pass
        case other:
            raise Refusal(400, "UserError", f"The event {other} is not known")
    return answer(None)


@history.route("GET", "/experiments/{experiment}/runs/{run}/metricsingest/wait")
def wait_for_metrics(call: Call) -> Response:
    """There are no metrics to wait for."""
    _run(call)
    return answer(None)


@history.route("GET", "/experiments/{experiment}/runs/{run}/token")
@history.route("GET", "/experimentids/{experiment_id}/runs/{run}/token")
def run_token(call: Call) -> Response:
    """A fresh token for the job of a run."""
    _run(call)
    expires = utc_now() + dt.timedelta(seconds=TOKEN_LIFETIME_S)
    return answer({"token": call.workspace.identity.issue("run"), "expiryTimeUtc": timestamp(expires)})
