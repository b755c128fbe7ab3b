"""Faults in the middle of a registration: a clear error, no version without its files, and the next try succeeds."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azureml_clients import Client, Refused, contents
from azureml_server import AzureMLServer, Fault, Run

from innereye_core.model import Package

Job = Callable[[Run], Client]

STEPS = {
    "make files": ("POST", r"/artifacts/batch/metadata/"),
    "upload a file": ("PUT", r"blob\.core\.windows\.net/.*score\.py"),
    "list what arrived": ("GET", r"/artifacts/prefix/contentinfo/"),
    "look at what arrived": ("HEAD", r"blob\.core\.windows\.net/.*environment\.yml"),
    "make the asset": ("POST", r"/assets$"),
    "make the version": ("POST", r"/models$"),
}
FAULTS: dict[str, dict[str, Any]] = {
    "500": {"status": 500},
    "403": {"status": 403},
    "409": {"status": 409},
    "429": {"status": 429},
    "dropped": {"drop": True},
}
SAYS = {
    "500": "AzureML fails (500)",
    "403": "not permitted (403)",
    "409": "(409)",
    "429": "AzureML gets too many requests (429)",
    "dropped": "AzureML cannot be reached",
}


EVERYWHERE = [(step, kind) for step in STEPS for kind in ("500", "403", "dropped")]


@pytest.mark.parametrize(
    ("step", "kind"), [*EVERYWHERE, ("make files", "409"), ("upload a file", "409"), ("make the asset", "429")]
)
def test_a_fault_that_stays_is_an_error_and_leaves_no_version(
    service: AzureMLServer, outside: Client, package: Package, step: str, kind: str
) -> None:
    method, path = STEPS[step]
    name = re.sub(r"\W", "-", f"{step}-{kind}")
    fault = service.faults.add(Fault(path=path, method=method, times=None, **FAULTS[kind]))

    with pytest.raises(Refused) as refused:
        outside("register", folder=package.folder, name=name)
    assert fault.struck
    assert refused.value.exit_code == 5
    assert SAYS[kind] in str(refused.value)
    assert "\n" not in str(refused.value)
    assert service.workspace.models(name) == []


@pytest.mark.parametrize("step", STEPS)
def test_running_the_same_again_succeeds(service: AzureMLServer, outside: Client, package: Package, step: str) -> None:
    method, path = STEPS[step]
    name = re.sub(r"\W", "-", f"{step}-again")
    service.faults.add(Fault(path=path, method=method, times=None, status=403))
    with pytest.raises(Refused):
        outside("register", folder=package.folder, name=name)
    service.faults.clear()

    assert outside("register", folder=package.folder, name=name)["version"] == 1
    assert len(service.workspace.model_files(f"{name}:1")) == 6


@pytest.mark.parametrize("step", ["upload a file", "list what arrived", "make the asset", "make the version"])
@pytest.mark.parametrize("kind", [{"status": 500}, {"drop": True}, {"drop": True, "applied": True}])
def test_a_fault_that_passes_is_overcome(
    service: AzureMLServer, outside: Client, package: Package, step: str, kind: dict[str, Any]
) -> None:
    method, path = STEPS[step]
    name = re.sub(r"\W", "-", f"{step}-passes")
    before = len(service.workspace.models(name))
    fault = service.faults.add(Fault(path=path, method=method, times=1, **kind))

    outside("register", folder=package.folder, name=name)

    assert fault.struck
    versions = service.workspace.models(name)
    assert len(versions) == before + 1
    assert len(service.workspace.model_files(versions[0])) == 6


def test_files_that_were_made_without_an_answer_are_an_error(
    service: AzureMLServer, outside: Client, package: Package
) -> None:
    """The second try finds that the files exist, and cannot know that the first one made them."""
    service.faults.add(Fault(path=STEPS["make files"][1], method="POST", drop=True, applied=True))

    with pytest.raises(Refused, match=r"something of this name already: .*; try again") as refused:
        outside("register", folder=package.folder, name="Unanswered")

    assert refused.value.exit_code == 5
    assert service.workspace.models("Unanswered") == []
    assert outside("register", folder=package.folder, name="Unanswered")["version"] == 1


def test_a_version_that_was_made_without_an_answer_is_not_made_twice(
    service: AzureMLServer, outside: Client, package: Package
) -> None:
    service.faults.add(Fault(path=STEPS["make the version"][1], method="POST", drop=True, applied=True, times=None))

    model = outside("register", folder=package.folder, name="Once")

    assert model["id"] == "Once:1"
    assert [each.version for each in service.workspace.models("Once")] == [1]


def test_a_file_that_arrives_incomplete_is_found(service: AzureMLServer, outside: Client, package: Package) -> None:
    """The service has the upload, and shows something else afterwards."""
    listing = service.faults.add(Fault(path=STEPS["list what arrived"][1], method="GET", delay_s=0.5))
    outside.begin("register", folder=package.folder, name="Incomplete")
    while not listing.struck:
        time.sleep(0.01)
    with service.workspace.lock:
        blob = next(name for name in reversed(service.workspace.blobs.contents()) if name.endswith("score.py"))
        service.workspace.blobs.write(blob, b"print")

    with pytest.raises(Refused, match=r"score\.py: 5 of 16 bytes arrived; run the same again"):
        outside.end()

    assert service.workspace.models("Incomplete") == []


def test_a_run_whose_deployment_failed_can_be_deployed_again(
    service: AzureMLServer, job: Job, package: Package, tmp_path: Path
) -> None:
    run = service.workspace.add_run("failing_run")
    service.faults.add(Fault(path=STEPS["upload a file"][1], method="PUT", status=403, times=None))
    with pytest.raises(Refused, match="not permitted"):
        job(run)("register", folder=package.folder, name="Again", of="run")
    service.faults.clear()

    job(run)("register", folder=package.folder, name="Again", of="run")
    job(run)("fetch", name="Again", folder=tmp_path / "fetched")

    assert [model.version for model in service.workspace.models("Again")] == [1]
    assert contents(tmp_path / "fetched") == contents(package.folder)


@pytest.fixture
def expired(service: AzureMLServer, new_client: Callable[..., Client]) -> Iterator[Client]:
    token = service.workspace.identity.issue("aad")
    service.workspace.identity.revoke(token)
    client = new_client(INNEREYE_AZUREML_TOKEN=token)
    yield client
    client.kill()


def test_a_token_that_has_expired(expired: Client, package: Package) -> None:
    with pytest.raises(Refused, match=r"AzureML does not accept the login \(401\).*renew the token") as refused:
        expired("models")

    assert refused.value.exit_code == 5


def test_a_workspace_that_is_not_there(outside: Client, service: AzureMLServer) -> None:
    subscription = service.workspace.scope.subscription
    for place in ("1111/nowhere/nothing", f"{subscription}/radiotherapy/nothing"):
        with pytest.raises(Refused, match=f"there is no workspace {place} that this login may see") as refused:
            outside("models", place=place)
        assert refused.value.exit_code == 5
