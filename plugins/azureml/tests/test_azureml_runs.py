"""The run source ``azureml``, from inside jobs of a loopback AzureML."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azureml_clients import Client, Refused
from azureml_server import AzureMLServer, Fault, Run

from innereye_azureml import job as job_module
from innereye_azureml.job import current_job
from innereye_azureml.runs import AzureMLRuns

Job = Callable[[Run], Client]

VARIABLES = {
    "AZUREML_ARM_SUBSCRIPTION": "1111",
    "AZUREML_ARM_RESOURCEGROUP": "radiotherapy",
    "AZUREML_ARM_WORKSPACE_NAME": "innereye",
    "AZUREML_ARM_PROJECT_NAME": "prostate",
    "AZUREML_RUN_ID": "run_1",
    "AZUREML_SERVICE_ENDPOINT": "https://westeurope.api.azureml.ms",
    "AZUREML_RUN_TOKEN": "secret",
}


# --- the current run --------------------------------------------------------------------------------------------------


def test_outside_jobs_there_is_no_run(outside: Client, tmp_path: Path) -> None:
    assert outside("current") is None
    assert outside("open_run", reference=str(tmp_path)) is None


def test_a_job_finds_its_run(service: AzureMLServer, job: Job) -> None:
    properties = {"azureml.git.commit": "7dc97265", "ContentSnapshotId": "1"}
    run = service.workspace.add_run("found_run", experiment="bladder", tags={"tag": "x"}, properties=properties)

    found = job(run)("current")

    assert found == {
        "id": "found_run",
        "name": "found_run",
        "folder": str(job(run).folder),
        "source": "azureml",
        "status": "Running",
        "tags": {"tag": "x"},
        "properties": {**properties, "experiment": "bladder", "source_commit": "7dc97265"},
        "parent": None,
        "fold": None,
        "inherits_from": None,
    }


def test_tags_are_as_they_are_now(service: AzureMLServer, job: Job) -> None:
    run = service.workspace.add_run("changing_run", tags={"a": "1"})
    client = job(run)
    client("current")

    run.tags["a"] = "2"

    assert client("current")["tags"] == {"a": "2"}


def test_the_dataset_is_that_of_the_run(service: AzureMLServer, job: Job) -> None:
    """Named in the run's definition, or in the argument of InnerEye."""
    named = service.workspace.add_run("run_with_dataset")
    dataset = {"dataLocation": {"type": "Dataset", "dataset": {"name": "prostate_2020", "id": "5", "version": "1"}}}
    named.run_definition = {"arguments": ["--azure_dataset_id", "other"], "data": {"input": dataset}}
    argued = service.workspace.add_run("run_with_dataset_argument")
    argued.run_definition = {"arguments": ["--azure_dataset_id=prostate_2021"]}

    assert job(named)("current")["properties"]["dataset"] == "prostate_2020"
    assert job(argued)("current")["properties"]["dataset"] == "prostate_2021"


def test_a_folder_opens_as_the_current_run(service: AzureMLServer, job: Job, tmp_path: Path) -> None:
    run = service.workspace.add_run("run_in_folder")

    opened = job(run)("open_run", reference=str(tmp_path))

    assert (opened["id"], opened["folder"]) == ("run_in_folder", str(tmp_path))
    assert job(run)("open_run", reference=str(tmp_path / "missing")) is None


def test_folds_that_one_job_trained_are_folders(service: AzureMLServer, job: Job) -> None:
    run = service.workspace.add_run("run_with_folders")
    client = job(run)
    for fold in ("0", "1"):
        (client.folder / fold / "checkpoints").mkdir(parents=True)

    found = client("children")

    assert [(child["fold"], child["parent"], child["source"]) for child in found] == [
        ("0", "run_with_folders", "local"),
        ("1", "run_with_folders", "local"),
    ]


def test_tags_are_added_to_the_run_and_to_its_parent(service: AzureMLServer, job: Job) -> None:
    parent, children = service.workspace.add_hyperdrive("hyperdrive_tags", 2)
    parent.tags["kept"] = "yes"

    tagged = job(children[0])("add_tags", tags={"model_id": "Prostate:1"})
    tagged_parent = job(children[0])("add_tags", tags={"model_id": "Prostate:2"}, of="parent")

    assert tagged["tags"] == children[0].tags == {"cross_validation_split_index": "0", "model_id": "Prostate:1"}
    assert tagged_parent["tags"] == parent.tags == {"kept": "yes", "model_id": "Prostate:2"}


def test_a_run_that_may_not_be_seen(service: AzureMLServer, job: Job) -> None:
    run = service.workspace.add_run("forbidden_run")
    service.faults.add(Fault(path="/runs/forbidden_run", status=403, times=None))

    with pytest.raises(Refused, match=r"not permitted \(403\).*ask for the role 'Reader'") as refused:
        job(run)("current")

    assert refused.value.exit_code == 5


# --- cross-validation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "arguments", "fold"),
    [
        ({"cross_validation_split_index": "3"}, [], "3"),
        ({"cross_validation_split_index": "3"}, ["--cross_validation_split_index=4"], "3"),
        ({}, ["--cross_validation_split_index", 4], "4"),
        ({}, ["--cross_validation_split_index=4", "--other"], "4"),
        ({}, ["--cross_validation_split_index"], None),
        ({"cross_validation_split_index": "-1"}, [], None),
        ({}, [], None),
    ],
)
def test_a_fold_has_its_index_from_its_tag_or_its_arguments(
    service: AzureMLServer, job: Job, tags: dict[str, str], arguments: list[Any], fold: str | None
) -> None:
    """Never from the run's id, which ends in a number, too."""
    name = f"parent_{len(service.workspace.runs)}"
    parent = service.workspace.add_run(name, run_type="hyperdrive")
    child = service.workspace.add_run(f"{name}_7", parent=parent, tags=tags)
    child.run_definition = {"arguments": arguments}

    found = job(child)("current")

    assert (found["parent"], found["fold"]) == (name, fold)
    assert (job(child)("parent") is None) == (fold is None)


def test_a_run_without_parent_is_no_fold(service: AzureMLServer, job: Job) -> None:
    run = service.workspace.add_run("lonely_run", tags={"cross_validation_split_index": "0"})

    assert job(run)("current")["fold"] is None
    assert job(run)("parent") is None


def test_the_parent_of_a_fold(service: AzureMLServer, job: Job) -> None:
    parent, children = service.workspace.add_hyperdrive("hyperdrive_parent", 2)
    parent.tags |= {"friendly_name": "five folds", "innereye_ensemble_lease": "1 released"}
    children[0].properties["azureml.git.commit"] = "7dc97265"
    children[0].run_definition = {"arguments": ["--number_of_cross_validation_splits=2", "--azure_dataset_id=ct"]}
    client = job(children[0])

    found = client("parent")

    assert (found["id"], found["source"], found["parent"], found["fold"]) == (
        "hyperdrive_parent",
        "azureml",
        None,
        None,
    )
    assert found["folder"] == str(client.folder)
    assert found["tags"] == {"friendly_name": "five folds"}
    assert found["properties"] == {
        "experiment": "prostate",
        "dataset": "ct",
        "source_commit": "7dc97265",
        "number_of_cross_validation_splits": "2",
    }


def test_folds_are_what_has_an_index(service: AzureMLServer, job: Job) -> None:
    """Not Hyperdrive's preparation; a fold that waits for its machine has its arguments, but no tag yet."""
    parent, children = service.workspace.add_hyperdrive("hyperdrive_folds", 3)
    children[1].set_status("Completed")
    children[1].tags["model_id"] = "Prostate:7"
    children[2].set_status("Queued")
    del children[2].tags["cross_validation_split_index"]
    children[2].run_definition = {"arguments": ["--cross_validation_split_index", "2"]}
    again = service.workspace.add_run("again_0", parent=parent, tags={"cross_validation_split_index": "0"})

    found = job(children[0])("folds")

    assert [(fold["fold"], fold["status"], fold["model_id"]) for fold in found] == [
        ("0", "Running", None),
        ("0", "Running", None),
        ("1", "Completed", "Prostate:7"),
        ("2", "Queued", None),
    ]
    assert {fold["id"] for fold in found if fold["fold"] == "0"} == {children[0].run_id, again.run_id}


def test_folds_are_asked_anew_each_time(service: AzureMLServer, job: Job) -> None:
    _, children = service.workspace.add_hyperdrive("hyperdrive_polled", 12)
    client = job(children[0])
    assert [fold["status"] for fold in client("folds")] == ["Running"] * 12

    children[11].set_status("Canceled")
    service.workspace.page_size = 5
    try:
        found = client("folds")
    finally:
        service.workspace.page_size = 100

    assert [(fold["fold"], fold["status"]) for fold in found][10:] == [("10", "Running"), ("11", "Canceled")]


# --- what is a job ----------------------------------------------------------------------------------------------------


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    job_module._warn_once.cache_clear()
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_all_variables_make_a_job(variables: pytest.MonkeyPatch) -> None:
    found = current_job()

    assert found is not None
    assert (found.run_id, str(found.scope)) == ("run_1", "1111/radiotherapy/innereye")


@pytest.mark.parametrize("missing", [name for name in VARIABLES if name != "AZUREML_RUN_ID"])
def test_half_a_job_is_none_with_one_warning(
    variables: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    variables.delenv(missing)

    assert AzureMLRuns().current() is None
    assert AzureMLRuns().current() is None

    assert len(caplog.messages) == 1
    assert re.match(f"AZUREML_RUN_ID is set, but {missing} not", caplog.messages[0])


def test_an_offline_run_is_no_job(variables: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    variables.setenv("AZUREML_RUN_ID", "OfflineRun_3f6a")

    assert current_job() is None
    assert "OfflineRun_3f6a" in caplog.text


def test_variables_of_the_workspace_alone_are_no_job(
    variables: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    variables.delenv("AZUREML_RUN_ID")

    assert current_job() is None
    assert caplog.messages == []
