"""What the tests of this distribution share: a loopback AzureML, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azureml_clients import Client, write_package

from innereye_core.model import Package


@pytest.fixture(scope="module")
def service() -> Iterator[Any]:
    """A loopback AzureML for the tests of a module; asking for a route that it does not know fails the module."""
    pytest.importorskip("azureml.core", reason="azureml-core is not installed")
    from azureml_server import serving

    with serving() as server:
        yield server
    assert server.unknown == []
    assert server.broken == []


@pytest.fixture(autouse=True)
def _all_is_well(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "service" in request.fixturenames:
        request.getfixturevalue("service").faults.clear()


@pytest.fixture(scope="module")
def new_client(service: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Starts clients: offline, or as the job of a run."""
    clients = []

    def start(run: Any = None, **variables: str) -> Client:
        folder = tmp_path_factory.mktemp("client")
        if run is None:
            service.write_config(folder)
            variables = {"INNEREYE_AZUREML_TOKEN": service.token, **variables}
        clients.append(Client(service.whole_environment(run, variables), folder))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def outside(new_client: Any) -> Client:
    """A client with a token and a config.json."""
    started: Client = new_client()
    return started


@pytest.fixture(scope="module")
def job(service: Any, new_client: Any) -> Any:
    """A client that is the job of the run that it is called with: ``job(run)("current")``."""
    client: Client = new_client(service.workspace.add_run("first_run"))

    def of(run: Any) -> Client:
        client("environment", variables=service.client_environment(run))
        return client

    return of


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return write_package(tmp_path / "made")
