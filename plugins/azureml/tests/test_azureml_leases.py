"""One process at a time may register a parent run's ensemble, whatever else runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from azureml_clients import Client, Refused, write_package
from azureml_server import AzureMLServer, Fault, Run

from innereye_azureml.leases import SECONDS_VARIABLE, _patience
from innereye_core.errors import UsageError
from innereye_core.model import Package

PATIENCE_S = 2
NewClient = Callable[..., Client]


@pytest.fixture
def ensemble(tmp_path: Path) -> Package:
    return write_package(tmp_path, "final_ensemble_model")


@pytest.fixture(scope="module")
def two(service: AzureMLServer, new_client: NewClient) -> tuple[Client, Client]:
    """Two processes that are ready; each test makes them jobs of its own runs."""
    run = service.workspace.add_run("before")
    clients = [new_client(run, INNEREYE_AZUREML_LEASE_SECONDS=str(PATIENCE_S)) for _ in range(2)]
    for client in clients:
        client("current")
    return clients[0], clients[1]


def as_jobs_of(service: AzureMLServer, clients: tuple[Client, Client], runs: tuple[Run, Run]) -> None:
    for client, run in zip(clients, runs, strict=True):
        client("environment", variables=service.client_environment(run))


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("same_run", [True, False])
def test_two_first_folds_at_once_register_one_ensemble(
    service: AzureMLServer, two: tuple[Client, Client], ensemble: Package, same_run: bool
) -> None:
    """A job that was restarted while it still runs elsewhere, or another run with the same index."""
    parent, children = service.workspace.add_hyperdrive(f"race_{same_run}", 2)
    again = service.workspace.add_run(
        f"race_{same_run}_again", parent=parent, tags={"cross_validation_split_index": "0"}
    )
    as_jobs_of(service, two, (children[0], children[0] if same_run else again))

    for client in two:
        client.begin("register_ensemble_once", folder=ensemble.folder)
    ended = [client.end() for client in two]

    assert sorted(model["made"] for model in ended) == [False, True]
    assert ended[0]["id"] == ended[1]["id"]
    made = [model for model in service.workspace.models() if model.run_id == parent.run_id]
    assert len(made) == 1


def test_a_second_process_waits_while_the_first_lives(
    service: AzureMLServer, two: tuple[Client, Client], ensemble: Package, tmp_path: Path
) -> None:
    parent, children = service.workspace.add_hyperdrive("slow_parent", 2)
    as_jobs_of(service, two, (children[0], children[0]))
    two[0].begin("register_ensemble_once", folder=ensemble.folder, go_on=tmp_path / "go.on")
    wait_for(tmp_path / "go.waiting")

    two[1].begin("register_ensemble_once", folder=ensemble.folder)
    time.sleep(1.5 * PATIENCE_S)
    assert list(service.workspace.run_artifacts(parent)) == ["innereye/ensemble_lease/1"]
    (tmp_path / "go.on").touch()

    assert two[0].end()["made"]
    assert not two[1].end()["made"]
    assert parent.tags["innereye_ensemble_lease"] == "2 released"


def test_a_process_that_died_holds_nobody_up(
    service: AzureMLServer, two: tuple[Client, Client], new_client: NewClient, ensemble: Package, tmp_path: Path
) -> None:
    parent, children = service.workspace.add_hyperdrive("dying_parent", 2)
    as_jobs_of(service, two, (children[0], children[0]))
    dying = new_client(children[0], INNEREYE_AZUREML_LEASE_SECONDS=str(PATIENCE_S))
    dying.begin("register_ensemble_once", folder=ensemble.folder, go_on=tmp_path / "go.on")
    wait_for(tmp_path / "go.waiting")
    dying.kill()

    model = two[0]("register_ensemble_once", folder=ensemble.folder)

    assert model["made"]
    assert set(service.workspace.run_artifacts(parent)) >= {"innereye/ensemble_lease/1", "innereye/ensemble_lease/2"}


def test_a_process_that_was_thought_dead_registers_nothing(
    service: AzureMLServer, two: tuple[Client, Client], ensemble: Package, tmp_path: Path
) -> None:
    parent, children = service.workspace.add_hyperdrive("silent_parent", 2)
    as_jobs_of(service, two, (children[0], children[0]))
    beats_of_the_first = r'innereye_ensemble_lease": "1 '
    service.faults.add(Fault(path="", body=beats_of_the_first, status=403, times=None, after=1))
    two[0].begin("register_ensemble_once", folder=ensemble.folder, go_on=tmp_path / "go.on")
    wait_for(tmp_path / "go.waiting")

    model = two[1]("register_ensemble_once", folder=ensemble.folder)
    service.faults.clear()
    (tmp_path / "go.on").touch()
    with pytest.raises(Refused, match="another process has taken over the ensemble") as refused:
        two[0].end()

    assert refused.value.exit_code == 5
    assert [each.model_id for each in service.workspace.models() if each.run_id == parent.run_id] == [model["id"]]


def test_an_error_gives_the_right_back(
    service: AzureMLServer, two: tuple[Client, Client], ensemble: Package, tmp_path: Path
) -> None:
    _, children = service.workspace.add_hyperdrive("failing_parent", 2)
    as_jobs_of(service, two, (children[0], children[0]))
    service.faults.add(Fault(path="/assets$", method="POST", status=403, times=None))
    with pytest.raises(Refused, match="not permitted"):
        two[0]("register_ensemble_once", folder=ensemble.folder)
    service.faults.clear()
    began = time.monotonic()

    assert two[1]("register_ensemble_once", folder=ensemble.folder)["made"]

    assert time.monotonic() - began < PATIENCE_S


def test_a_claim_without_an_answer_is_nobodys(
    service: AzureMLServer, two: tuple[Client, Client], ensemble: Package
) -> None:
    """The process cannot know that it was its own, so it waits as if another had it."""
    parent, children = service.workspace.add_hyperdrive("unanswered_parent", 2)
    as_jobs_of(service, two, (children[0], children[0]))
    service.faults.add(Fault(path="batch/metadata", body="ensemble_lease/1", drop=True, applied=True))

    assert two[0]("register_ensemble_once", folder=ensemble.folder)["made"]

    assert "innereye/ensemble_lease/2" in service.workspace.run_artifacts(parent)


def test_a_service_that_does_not_know_the_folder_yet(
    service: AzureMLServer, two: tuple[Client, Client], ensemble: Package
) -> None:
    _, children = service.workspace.add_hyperdrive("new_parent", 2)
    as_jobs_of(service, two, (children[0], children[0]))
    service.faults.add(Fault(path="prefix/contentinfo/.*ensemble_lease", status=404))

    assert two[0]("register_ensemble_once", folder=ensemble.folder)["made"]


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan"])
def test_the_time_must_be_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(SECONDS_VARIABLE, text)

    with pytest.raises(UsageError, match=f"{SECONDS_VARIABLE}={text}: must be a number of seconds"):
        _patience()
