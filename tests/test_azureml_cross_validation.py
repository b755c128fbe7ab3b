"""A cross-validation in Hyperdrive: every fold a job of its own, the ensemble on the parent, all over the real SDK."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from toy_toolbox import write_run, write_toy_site

pytest.importorskip("azureml.core", reason="azureml-core is not installed")

from azureml_server import AzureMLServer, serving


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the toy toolbox is installed: without torch, a job takes a few seconds."""
    return write_toy_site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def azureml() -> Iterator[AzureMLServer]:
    with serving() as server:
        yield server
    assert server.unknown == []
    assert server.broken == []


@dataclass
class CrossValidation:
    """The jobs of a cross-validation."""

    server: AzureMLServer
    site: Path
    folder: Path
    parent: Any
    children: list[Any]
    outcomes: dict[int, Any] = field(default_factory=dict)

    def command(self, *options: str) -> list[str]:
        return ["deploy", "outputs", "--ensemble-timeout", "100s", *options]

    def place(self, number: int, name: str = "job") -> Path:
        """The machine of a job, with what training has left there: epoch ``number + 1`` is best."""
        place = self.folder / f"{name}_{number}"
        if not place.exists():
            write_run(place / "outputs", {epoch: 0.9 if epoch == number + 1 else 0.5 for epoch in (1, number + 1)})
        return place

    def variables(self) -> dict[str, str]:
        path = self.server.client_environment()["PYTHONPATH"]
        return {"PYTHONPATH": f"{self.site}:{path}", "INNEREYE_LOAD_PLUGINS": "toy,azureml"}

    def deploy(self, number: int, *options: str, name: str = "job") -> Any:
        """Do what the job of a fold does, and end the run as AzureML would."""
        outcome = self.server.innereye(
            *self.command(*options),
            run=self.children[number],
            cwd=self.place(number, name),
            variables=self.variables(),
        )
        self.children[number].set_status("Completed" if outcome.exit_code == 0 else "Failed")
        self.outcomes[number] = outcome
        return outcome

    def model_id(self, number: int | None = None) -> str | None:
        run = self.parent if number is None else self.children[number]
        found: str | None = self.server.workspace.run(run.run_id).tags.get("model_id")
        return found

    def ensembles(self) -> list[Any]:
        return [model for model in self.server.workspace.models() if model.tags["is_ensemble"] == "True"]


def begin(server: AzureMLServer, site: Path, folder: Path, folds: int) -> CrossValidation:
    parent, children = server.workspace.add_hyperdrive("HD_1", folds)
    parent.tags["number_of_cross_validation_splits"] = str(folds)
    parent.tags["site"] = "Basel"
    return CrossValidation(server, site, folder, parent, children)


Begin = Callable[[int], CrossValidation]


@pytest.fixture
def cross_validation(azureml: AzureMLServer, site: Path, tmp_path: Path) -> Begin:
    return lambda folds: begin(azureml, site, tmp_path, folds)


# --- five folds -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrossValidation]:
    """Five folds that were deployed two at a time in a random order, in which fold 0 was not the last."""
    with serving() as server:
        cv = begin(server, site, tmp_path_factory.mktemp("finished"), 5)
        order = random.Random(1).sample(range(5), 5)
        assert order[-1] != 0
        with ThreadPoolExecutor(2) as machines:
            list(machines.map(lambda number: cv.deploy(number, "--debug"), order))
        yield cv
    assert server.unknown == []
    assert server.broken == []


def test_every_fold_registers_its_model_and_fold_0_the_ensemble(finished: CrossValidation) -> None:
    assert [finished.outcomes[fold].exit_code for fold in range(5)] == [0] * 5, finished.outcomes
    assert len({finished.model_id(fold) for fold in range(5)}) == 5
    (ensemble,) = finished.ensembles()
    assert ensemble.run_id == "HD_1"
    assert finished.model_id() == ensemble.model_id
    assert len(finished.server.workspace.models()) == 6
    assert finished.outcomes[0].stdout.splitlines()[-2:] == [finished.model_id(0), ensemble.model_id]


def test_models_say_what_they_are_of(finished: CrossValidation) -> None:
    one = finished.server.workspace.model(str(finished.model_id(1)))
    assert one.run_id == "HD_1_1"
    assert one.tags["parent_run_id"] == "HD_1"
    assert one.tags["cross_validation_split_index"] == "1"
    assert one.tags["is_ensemble"] == "False"
    (ensemble,) = finished.ensembles()
    assert ensemble.tags["site"] == "Basel"
    assert "cross_validation_split_index" not in ensemble.tags
    assert "model_id" not in ensemble.tags
    assert ensemble.properties["epoch"] == "1,2,3,4,5"


def test_ensemble_holds_the_checkpoints_that_the_folds_packaged(finished: CrossValidation) -> None:
    files = finished.server.workspace.model_files(str(finished.model_id()))
    fold = finished.server.workspace.model_files(str(finished.model_id(1)))
    path = "checkpoints/2_checkpoint.pth.tar"
    assert files["final_ensemble_model/checkpoints/1/2_checkpoint.pth.tar"] == fold[f"final_model/{path}"]
    manifest = json.loads(files["final_ensemble_model/manifest.json"] or b"")
    members = [(member["run"], member["fold"], member["epoch"]) for member in manifest["members"]]
    assert members == [(f"HD_1_{fold}", str(fold), fold + 1) for fold in range(5)]


def test_tokens_and_signatures_are_nowhere_but_where_they_belong(finished: CrossValidation) -> None:
    """Every job ran with --debug."""
    for fold, child in enumerate(finished.children):
        token, outcome = finished.server.run_token(child), finished.outcomes[fold]
        assert token not in outcome.stdout + outcome.stderr
        assert "sig=" not in outcome.stdout + outcome.stderr.replace("sig=***", "")
        assert finished.server.where_sent(token) == []


def test_restarted_fold_0_registers_no_second_ensemble(finished: CrossValidation) -> None:
    first = finished.model_id()

    again = finished.deploy(0, name="restarted")

    assert again.exit_code == 0
    assert again.stdout.splitlines()[-1] == first
    assert len(finished.ensembles()) == 1


# --- when folds are missing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["Failed", "Canceled"])
def test_fold_that_failed_ends_the_wait(cross_validation: Begin, status: str) -> None:
    cv = cross_validation(3)
    cv.children[2].set_status(status)

    outcome = cv.deploy(0)

    assert outcome.exit_code == 3
    assert f"fold 2 is {status}; finish it, or pass --allow-missing-folds" in outcome.stderr
    assert f"{cv.model_id(0)} is registered, but not the ensemble of run HD_1" in outcome.stderr
    assert cv.ensembles() == []
    assert cv.model_id() is None


@pytest.mark.slow
def test_one_failed_and_one_canceled_fold_are_left_out_where_that_is_allowed(cross_validation: Begin) -> None:
    cv = cross_validation(5)
    for fold in (1, 4):
        cv.deploy(fold)
    cv.children[2].set_status("Failed")
    cv.children[3].later("Canceled", seconds=2)

    assert cv.deploy(0, "--allow-missing-folds").exit_code == 0

    (ensemble,) = cv.ensembles()
    assert ensemble.properties["epoch"] == "1,2,5"


# --- a second fold 0 --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_folds_0_at_once_register_one_ensemble(cross_validation: Begin) -> None:
    """The job was restarted, and the first process lives on."""
    cv = cross_validation(2)
    cv.deploy(1)
    with ThreadPoolExecutor(2) as machines:
        outcomes = list(machines.map(lambda name: cv.deploy(0, name=name), ("first", "second")))

    done = [outcome for outcome in outcomes if outcome.exit_code == 0]
    late = [outcome for outcome in outcomes if outcome.exit_code != 0]
    (ensemble,) = cv.ensembles()
    assert {outcome.stdout.splitlines()[-1] for outcome in done} == {ensemble.model_id}
    for outcome in late:  # both were about to make the same files of the run
        assert outcome.exit_code == 5
        assert "has something of this name already" in outcome.stderr


@pytest.mark.slow
def test_fold_0_that_was_killed_while_it_made_the_ensemble_makes_it_after_its_restart(
    cross_validation: Begin,
) -> None:
    """What the dead process has uploaded to the parent run stays there, and harms nobody."""
    cv = cross_validation(2)
    cv.deploy(1)
    variables = {**cv.variables(), "INNEREYE_AZUREML_LEASE_SECONDS": "3"}
    process = subprocess.Popen(
        [sys.executable, "-m", "innereye_core", *cv.command()],
        cwd=cv.place(0, "killed"),
        env=cv.server.whole_environment(cv.children[0], variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not any("final_ensemble_model" in path for path in cv.server.workspace.run_artifacts("HD_1")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert cv.ensembles() == []

    outcome = cv.server.innereye(*cv.command(), run=cv.children[0], cwd=cv.place(0, "restarted"), variables=variables)

    assert outcome.exit_code == 0, outcome.stderr
    (ensemble,) = cv.ensembles()
    files = cv.server.workspace.model_files(ensemble.model_id)
    manifest = json.loads(files["final_ensemble_model/manifest.json"])
    paths = {f"final_ensemble_model/{record['path']}" for record in manifest["files"]}
    assert set(files) == {*paths, "final_ensemble_model/manifest.json"}
    assert None not in files.values()


# --- which fold a job is --------------------------------------------------------------------------------------------


def test_child_without_an_index_deploys_itself_and_nothing_else(
    cross_validation: Begin,
) -> None:
    cv = cross_validation(2)
    del cv.children[0].tags["cross_validation_split_index"]

    assert cv.deploy(0).exit_code == 0

    model = cv.server.workspace.model(cv.model_id(0))
    assert model.tags["parent_run_id"] == "HD_1"
    assert "cross_validation_split_index" not in model.tags
    assert cv.ensembles() == []


@pytest.mark.slow
def test_index_may_be_an_argument_of_the_job(cross_validation: Begin) -> None:
    cv = cross_validation(2)
    for number, child in enumerate(cv.children):
        del child.tags["cross_validation_split_index"]
        child.run_definition = {"arguments": ["--cross_validation_split_index", str(number)]}
    cv.deploy(1)

    assert cv.deploy(0).exit_code == 0

    assert len(cv.ensembles()) == 1
    assert cv.server.workspace.model(cv.model_id(1)).tags["cross_validation_split_index"] == "1"


@pytest.mark.slow
def test_fold_0_waits_for_a_fold_that_has_not_begun(cross_validation: Begin) -> None:
    cv = cross_validation(3)
    late = cv.children.pop()
    cv.server.workspace.runs.pop(late.run_id)
    cv.deploy(1)

    def begin() -> None:
        time.sleep(6)
        cv.children.append(
            cv.server.workspace.add_run(
                "HD_1_2", experiment=late.experiment, parent=cv.parent, tags={"cross_validation_split_index": "2"}
            )
        )
        cv.deploy(2)

    thread = threading.Thread(target=begin)
    thread.start()
    outcome = cv.deploy(0)
    thread.join()

    assert outcome.exit_code == 0, outcome.stderr
    assert cv.ensembles()[0].properties["epoch"] == "1,2,3"
