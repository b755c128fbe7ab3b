"""Faults of the loopback AzureML server do what they say, and what the SDK makes of them."""

from __future__ import annotations

import http.client
import json
import ssl
import time

import pytest
from azureml_raw import SUBSCRIPTIONS, Raw
from azureml_sdk import REGISTER, client, write_model
from azureml_server import Fault
from azureml_server.fixtures import azureml as azureml

pytest.importorskip("azureml", reason="azureml-core is not installed")


@pytest.fixture
def raw(azureml):
    return Raw(azureml)


def test_a_fault_strikes_after_some_requests_and_as_often_as_was_asked(azureml, raw):
    fault = azureml.faults.add(Fault(method="GET", path="/subscriptions", status=503, after=1, times=2))

    assert [raw("GET", SUBSCRIPTIONS)[0] for _ in range(5)] == [200, 503, 503, 200, 200]
    assert (fault.seen, fault.struck) == (5, 2)
    assert [recorded.status for recorded in azureml.asked("GET", "/subscriptions")] == [200, 503, 503, 200, 200]


def test_a_fault_can_be_chosen_by_what_is_sent(azureml, raw):
    azureml.workspace.add_run("train_1")
    azureml.faults.add(Fault(path="/runs/", body='"model_id"', status=409))
    run = f"westeurope.api.azureml.ms/history/v1.0{azureml.workspace.scope.path}/experiments/prostate/runs/train_1"

    statuses = [raw("PATCH", run, json.dumps({"tags": {key: "1"}}).encode())[0] for key in ("other", "model_id")]

    assert statuses == [200, 409]
    assert azureml.workspace.run("train_1").tags == {"other": "1"}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(path="/runs/", drop=True), (ConnectionError, ssl.SSLError)),
        (Fault(path="/runs/", drop=True, applied=True), (ConnectionError, ssl.SSLError)),
        (Fault(path="/runs/", truncate=0.5), (http.client.IncompleteRead,)),
    ],
    ids=["before", "after", "in the answer"],
)
def test_a_connection_closes_before_or_after_the_effect(azureml, raw, fault, error):
    azureml.workspace.add_run("train_1")
    azureml.faults.add(fault)
    run = f"westeurope.api.azureml.ms/history/v1.0{azureml.workspace.scope.path}/experiments/prostate/runs/train_1"

    with pytest.raises(error):
        raw("PATCH", run, b'{"tags": {"model_id": "Prostate:1"}}')

    took_effect = "model_id" in azureml.workspace.run("train_1").tags
    assert took_effect == (fault.applied or fault.truncate is not None)


def test_answers_can_be_late_and_slow(azureml, raw):
    _, body = raw("GET", SUBSCRIPTIONS)
    azureml.faults.add(Fault(path="/subscriptions", delay_s=0.1))
    azureml.faults.add(Fault(path="/subscriptions", bytes_per_s=len(body) / 0.2))

    for least_s in (0.1, 0.2):
        started = time.monotonic()
        assert raw("GET", SUBSCRIPTIONS) == (200, body)
        assert least_s <= time.monotonic() - started < 2


@pytest.mark.parametrize("wrong", [{}, {"drop": True, "status": 500}, {"drop": True, "body": "x"}])
def test_a_fault_that_means_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match=r"fault|answer|body"):
        Fault(path="/", **wrong)


def test_faults_that_pass_are_overcome_by_the_sdk(azureml, tmp_path):
    write_model(tmp_path)
    faults = [
        azureml.faults.add(fault)
        for fault in (
            Fault(method="POST", path="/batch/metadata/", status=429),
            Fault(method="PUT", path=r"blob\.core.*score\.py", status=500),
            Fault(method="PUT", path=r"blob\.core.*checkpoints", drop=True),
            Fault(method="POST", path="/assets", drop=True),
            Fault(method="POST", path="/models", status=500),
            Fault(method="GET", path=r"blob\.core.*score\.py", truncate=0.5),
            Fault(method="GET", path=r"blob\.core.*checkpoints", status=403),
        )
    ]

    client(azureml, tmp_path, REGISTER + 'model.download("downloaded"); show()')

    assert [fault.struck for fault in faults] == [1] * len(faults)
    assert [model.model_id for model in azureml.workspace.models()] == ["Prostate:1"]
    assert (tmp_path / "downloaded" / "final_model" / "score.py").read_bytes() == b"print('scores')\n"


def test_a_refusal_ends_a_registration_without_a_model(azureml, tmp_path):
    write_model(tmp_path)
    azureml.faults.add(Fault(method="PUT", path=r"blob\.core.*score\.py", status=403, code="AuthenticationFailed"))
    azureml.faults.add(Fault(method="POST", path="/assets", status=403))
    azureml.faults.add(Fault(method="POST", path="/models", status=409))

    shown = client(
        azureml,
        tmp_path,
        """
workspace = open_workspace(sys.argv[1])
register = lambda: Model.register(workspace, "final_model", "Prostate")
show(errors=[failure(register) for _ in range(3)], then=register().id)
""",
    )

    blob, asset, model = shown["errors"]
    assert blob[0] == "ClientAuthenticationError"
    assert "Forbidden" in asset[1]
    assert "Response Code: 409" in model[1]
    assert shown["then"] == "Prostate:1"


def test_an_answer_that_is_lost_leaves_the_effect_behind(azureml, tmp_path):
    write_model(tmp_path)
    azureml.faults.add(Fault(method="PUT", path=r"blob\.core.*score\.py", drop=True, applied=True))
    azureml.faults.add(Fault(method="POST", path="/models", drop=True, applied=True))

    shown = client(
        azureml,
        tmp_path,
        """
workspace = open_workspace(sys.argv[1])
register = lambda: Model.register(workspace, "final_model", "Prostate")
show(blob=failure(register), model=register().id)
""",
    )

    assert shown["blob"][0] == "ResourceExistsError"
    assert shown["model"] == "Prostate:2"
    assert [model.model_id for model in azureml.workspace.models()] == ["Prostate:2", "Prostate:1"]


def test_an_upload_that_was_cut_off_can_be_looked_at_and_repaired(azureml, tmp_path):
    azureml.workspace.add_run("train_1")
    files = write_model(tmp_path)
    azureml.faults.add(Fault(method="PUT", path=r"score\.py\?", status=403))

    shown = client(
        azureml,
        tmp_path,
        """
from azureml._file_utils import upload_blob_from_stream
run = Run.get_context(allow_offline=False)
failed = failure(lambda: run.upload_folder("final_model", "final_model"))
artifacts, where = run._client.artifacts, ("ExperimentRun", run._container)
listed = sorted(run.get_file_names())
again = failure(lambda: run.upload_file("final_model/score.py", "final_model/score.py"))
uri = artifacts.get_writeable_artifact_sas_uri(*where, "final_model/score.py")
with open("final_model/score.py", "rb") as stream:
    upload_blob_from_stream(stream, uri, timeout=30, backoff=1, retries=1)
run.download_file("final_model/score.py", "downloaded.py")
workspace_arguments = run.experiment.workspace.service_context
artifacts._execute_with_workspace_arguments(artifacts._client.artifact.delete_meta_data, *where, "final_model/score.py",
                                            hard_delete=True)
deleted = sorted(run.get_file_names())
run.upload_file("final_model/score.py", "final_model/score.py")
show(failed=failed, listed=listed, again=again, deleted=deleted)
""",
        run="train_1",
    )

    assert shown["failed"] is not None
    assert shown["listed"] == sorted(files), "what was not written is listed all the same"
    assert shown["again"][0] == "AzureMLAggregatedException"
    assert (tmp_path / "downloaded.py").read_bytes() == files["final_model/score.py"]
    assert shown["deleted"] == sorted(set(files) - {"final_model/score.py"})
    assert azureml.workspace.run_artifacts("train_1") == files
