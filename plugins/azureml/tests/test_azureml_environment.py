"""``innereye azureml environment``: the packaged environment.yml becomes an environment of AzureML."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from scoring_packages import write_scoring_package

Register = Callable[..., Any]


@pytest.fixture(scope="module")
def package_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scoring_package(tmp_path_factory.mktemp("made"))


@pytest.fixture
def register(service: Any, package_folder: Path, tmp_path: Path) -> Register:
    service.write_config(tmp_path)

    def call(*options: str) -> Any:
        variables = {"INNEREYE_AZUREML_TOKEN": service.token}
        return service.innereye("azureml", "environment", package_folder, *options, cwd=tmp_path, variables=variables)

    return call


def test_environment_is_the_packaged_file_and_nothing_else(register, service, package_folder):
    outcome = register()

    assert outcome.stdout == "innereye-Ball:1\n"
    registered = service.workspace.environments["innereye-Ball"]["1"]
    assert registered["python"]["condaDependencies"] == yaml.safe_load(
        (package_folder / "environment.yml").read_text(encoding="utf-8")
    )
    assert registered["environmentVariables"] == {}
    assert service.where_sent(service.token) == []
    assert service.token not in outcome.stdout + outcome.stderr


def test_the_same_environment_again_is_the_same_version(register):
    document = {"id": "ball-env:1", "name": "ball-env", "version": "1"}

    assert json.loads(register("--name", "ball-env", "--json").stdout) == document
    assert json.loads(register("--name", "ball-env", "--json").stdout) == document


@pytest.mark.parametrize("name", ["AzureML-ball", "my environment", "x" * 256])
def test_name_that_azureml_does_not_take(name, package_folder, capfd):
    from innereye_core.cli.group import innereye
    from innereye_core.cli.main import run

    exit_code = run(innereye, ["azureml", "environment", str(package_folder), "--name", name], "innereye")

    printed = capfd.readouterr()
    assert exit_code == 2
    assert printed.out == ""
    assert printed.err.startswith(f"error: --name {name!r} cannot be the name of an environment")


def test_service_that_refuses(register, service):
    from azureml_server import Fault

    service.faults.add(Fault(path="/environments/", status=403, times=None))

    outcome = register()

    assert outcome.exit_code == 5
    assert outcome.stderr.startswith("error: cannot register environment innereye-Ball: not permitted (403)")
    assert len(outcome.stderr.splitlines()) == 1
