"""Routes to submit a job: computes, snapshots of code, environments, and the execution service."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

from azureml_server.blobs import WRITE
from azureml_server.messages import Json, Refusal, Response, answer
from azureml_server.router import Call, Router
from azureml_server.runs import FINAL
from azureml_server.workspace import Job, Snapshot

NO_SNAPSHOT = "00000000-0000-0000-0000-000000000000"

computes = Router("/rp/workspaces{scope}/computes")
content = Router("/content")
environments = Router("/environment/v1.0{scope}/environments")
execution = Router("/execution/v1.0{scope}/experiments/{experiment}")


def _compute(call: Call, name: str) -> Json:
    scope = call.workspace.scope
    return {
        "id": f"{scope.path}/computes/{name}",
        "name": name,
        "type": "Microsoft.MachineLearningServices/workspaces/computes",
        "location": scope.location,
        "tags": {},
        "properties": {
            "computeType": "AmlCompute",
            "computeLocation": scope.location,
            "isAttachedCompute": False,
            "description": None,
            "resourceId": None,
            "provisioningState": "Succeeded",
            "provisioningErrors": None,
            "createdOn": "2020-01-01T00:00:00.0000000+00:00",
            "modifiedOn": "2020-01-01T00:00:00.0000000+00:00",
            "disableLocalAuth": False,
            "properties": {
                "vmSize": call.workspace.computes[name],
                "vmPriority": "Dedicated",
                "subnet": None,
                "scaleSettings": {"minNodeCount": 0, "maxNodeCount": 4, "nodeIdleTimeBeforeScaleDown": "PT120S"},
                "currentNodeCount": 0,
                "targetNodeCount": 0,
                "allocationState": "Steady",
                "allocationStateTransitionTime": "2020-01-01T00:00:00.0000000+00:00",
                "nodeStateCounts": None,
                "errors": None,
                "remoteLoginPortPublicAccess": "Disabled",
            },
        },
    }


@computes.route("GET", "")
def list_computes(call: Call) -> Response:
    """All clusters."""
    return answer({"value": [_compute(call, name) for name in call.workspace.computes]})


@computes.route("GET", "/{compute}")
def get_compute(call: Call) -> Response:
    """One cluster."""
    if call["compute"] not in call.workspace.computes:
        raise Refusal(404, "ResourceNotFound", f"The compute {call['compute']} was not found.")
    return answer(_compute(call, call["compute"]))


@content.route("GET", "/v1.0{scope}/snapshots/latest/metadata")
def latest_snapshot(call: Call) -> Response:
    """No snapshot to start from: clients send all files, and remember from then on."""
    return answer({"root": {}, "id": NO_SNAPSHOT})


@content.route("POST", "/v2.0{scope}/snapshots/getblob")
def snapshot_blobs(call: Call) -> Response:
    """URIs to write the files of a snapshot to."""
    folder = f"snapshots/{uuid.uuid4()}"
    nodes = [
        {"fullName": name, "blobUri": call.workspace.blobs.uri(f"{folder}/{name}", WRITE)}
        for name in call.request.json()["FileNames"]
    ]
    return answer({"fileNodes": nodes})


@content.route("POST", "/v2.0{scope}/snapshots/{snapshot}")
def create_snapshot(call: Call) -> Response:
    """A snapshot: a tree of files, of which those that did not change since the parent snapshot were not sent again."""
    document = call.request.json()
    parent_id = document["ParentSnapshotId"]
    if parent_id != NO_SNAPSHOT and parent_id not in call.workspace.snapshots:
        raise Refusal(404, "SnapshotNotFound", f"The parent snapshot {parent_id} was not found.")
    files = {} if parent_id == NO_SNAPSHOT else dict(call.workspace.snapshots[parent_id].files)
    for node in document["FileRevisionList"]["FileNodes"]:
        files[node["FullName"]] = call.workspace.blobs.name_of_uri(node["BlobUri"])
    listed = list(_files(document["DirTreeNode"]))
    missing = [path for path in listed if path not in files or call.workspace.blobs.find(files[path]) is None]
    if missing:
        raise Refusal(400, "UserError", f"The file {missing[0]} of the snapshot was not uploaded.")
    call.workspace.snapshots[call["snapshot"]] = Snapshot(call["snapshot"], {path: files[path] for path in listed})
    return answer(None)


def _files(node: Json, folder: str = "") -> Iterator[str]:
    """The paths of the files in a tree, whose root has no name."""
    for name, child in (node.get("children") or {}).items():
        path = f"{folder}{name}"
        if child["type"] == "File":
            yield path
        else:
            yield from _files(child, f"{path}/")


@environments.route("PUT", "/{name}")
@environments.route("PUT", "/{name}/versions/{version}")
def register_environment(call: Call) -> Response:
    """Register an environment; one that is the same as the latest version is that version."""
    body = {key[0].lower() + key[1:]: value for key, value in call.request.json().items()}
    versions = call.workspace.environments.setdefault(call["name"], {})
    latest = list(versions.values())[-1] if versions else {}
    version = call.parts.get("version")
    if version is None:
        unchanged = {key: value for key, value in latest.items() if key != "version"} == {**body, "name": call["name"]}
        version = latest["version"] if unchanged else str(len(versions) + 1)
    versions[version] = {**body, "name": call["name"], "version": version}
    return answer(versions[version])


@environments.route("GET", "/{name}")
@environments.route("GET", "/{name}/versions/{version}")
def get_environment(call: Call) -> Response:
    """An environment: a version of it, or the latest."""
    versions = call.workspace.environments.get(call["name"], {})
    version = call.parts.get("version") or next(reversed(versions), None)
    if version not in versions:
        raise Refusal(404, "UserError", f"No environment exists for name: {call['name']}, version: {version}")
    return answer(versions[version])


@environments.route("GET", "/")
def list_environments(call: Call) -> Response:
    """The latest version of each environment."""
    latest = [list(versions.values())[-1] for versions in call.workspace.environments.values()]
    return answer({"value": latest, "continuationToken": None})


@execution.route("POST", "/snapshotrun")
def submit(call: Call) -> Response:
    """Submit a job that runs a script of a snapshot."""
    workspace, document = call.workspace, call.request.json()
    configuration: dict[str, Any] = document["Configuration"]
    snapshot = workspace.snapshots.get(document["SnapshotId"])
    if snapshot is None:
        raise Refusal(400, "UserError", f"The snapshot {document['SnapshotId']} was not found.")
    if configuration["target"] not in workspace.computes:
        raise Refusal(400, "UserError", f"Compute target {configuration['target']} was not found in the workspace.")
    files = {path: _content(call, blob) for path, blob in snapshot.files.items()}
    if configuration["script"] not in files:
        raise Refusal(400, "UserError", f"The script {configuration['script']} is not in the snapshot.")
    run_id = call.request.query["runId"]
    if run_id in workspace.runs:
        raise Refusal(409, "UserError", f"There is a run {run_id} already.")
    run = workspace.add_run(
        run_id,
        experiment=call["experiment"],
        parent=document.get("ParentRunId"),
        status="Queued",
        properties={"ContentSnapshotId": snapshot.snapshot_id},
    )
    run.target, run.script, run.run_definition = configuration["target"], configuration["script"], configuration
    run.cancel_uri = (
        f"https://{call.request.host}{call.request.path.removesuffix('/snapshotrun')}/runs/{run.run_id}/cancel"
    )
    job = Job(run, configuration, files)
    workspace.jobs.append(job)
    if workspace.on_submit is None:
        run.later("Running", polls=1)
        run.later("Completed", polls=1)
    else:
        threading.Thread(target=workspace.on_submit, args=(job,), daemon=True).start()
    return answer({"runId": run.run_id})


def _content(call: Call, blob_name: str) -> bytes:
    blob = call.workspace.blobs.find(blob_name)
    if blob is None or blob.content is None:
        raise Refusal(400, "UserError", f"The blob {blob_name} of the snapshot is gone.")
    return blob.content


@execution.route("POST", "/runs/{run}/cancel")
def cancel(call: Call) -> Response:
    """Cancel a job."""
    run = call.workspace.run(call["run"])
    if run.status not in FINAL:
        run.set_status("Canceled")
        if run.on_cancel is not None:
            run.on_cancel()
    return answer(None)
