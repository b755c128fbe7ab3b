"""Which workspace is meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from innereye_azureml.job import Scope, job_in
from innereye_azureml.registry import AzureMLRegistry
from innereye_azureml.workspace import chosen_scope, parse_place
from innereye_core.errors import InputError, UsageError

VARIABLES = {
    "AZUREML_ARM_SUBSCRIPTION": "1111",
    "AZUREML_ARM_RESOURCEGROUP": "of-variables",
    "AZUREML_ARM_WORKSPACE_NAME": "innereye",
}
OF_A_JOB = {
    "AZUREML_ARM_PROJECT_NAME": "prostate",
    "AZUREML_RUN_ID": "run_1",
    "AZUREML_SERVICE_ENDPOINT": "https://westeurope.api.azureml.ms",
    "AZUREML_RUN_TOKEN": "secret",
}
CONFIG = {"subscription_id": "1111", "resource_group": "of-config", "workspace_name": "innereye"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and none of the variables."""
    for name in VARIABLES | OF_A_JOB:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_config(path: Path, group: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**CONFIG, "resource_group": group}))
    return path


def test_a_place_is_three_names() -> None:
    assert parse_place("1111/radiotherapy/innereye") == Scope("1111", "radiotherapy", "innereye")


def test_a_place_is_the_path_of_a_config(folder: Path) -> None:
    assert parse_place(str(write_config(folder / "my config.json", "there"))) == Scope("1111", "there", "innereye")


@pytest.mark.parametrize("place", ["innereye", "a/b", "a/b/c/d", "a//c", "missing/config.json", "a/ /c"])
def test_what_is_neither_is_refused(place: str) -> None:
    with pytest.raises(UsageError, match=f"azureml:{place} is no workspace and no file; write azureml:PLACE"):
        AzureMLRegistry().at(place)


def test_a_place_comes_before_all_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(folder / "config.json", "of-config")
    for name, value in (VARIABLES | OF_A_JOB).items():
        monkeypatch.setenv(name, value)

    assert chosen_scope("2222/a/b") == Scope("2222", "a", "b")


def test_variables_come_before_a_config(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(folder / "config.json", "of-config")
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)

    assert chosen_scope() == Scope("1111", "of-variables", "innereye")


@pytest.mark.parametrize("missing", VARIABLES)
def test_half_of_the_variables_is_refused(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, "" if name == missing else value)

    with pytest.raises(UsageError, match=f"^{missing} is not set; set all of"):
        chosen_scope()


@pytest.mark.parametrize("place", ["config.json", ".azureml/config.json", "../config.json", "../.azureml/config.json"])
def test_a_config_here_or_above_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    below = folder / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    write_config(below / place, "found")

    assert chosen_scope().resource_group == "found"


def test_the_nearest_config_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(folder / ".azureml/config.json", "far")
    write_config(folder / "below/config.json", "near")
    monkeypatch.chdir(folder / "below")

    assert chosen_scope().resource_group == "near"


@pytest.mark.parametrize("key", CONFIG)
@pytest.mark.parametrize("value", [None, "", 7, "a/b"])
def test_a_config_without_one_of_the_texts_is_refused(folder: Path, key: str, value: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**CONFIG, key: value}))

    with pytest.raises(InputError, match=f"config.json: {key}: must be a text, not {value!r}"):
        chosen_scope()


def test_a_config_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{")

    with pytest.raises(InputError, match="is not valid JSON"):
        chosen_scope()


def test_without_anything_the_four_ways_are_named() -> None:
    with pytest.raises(UsageError) as refused:
        chosen_scope()

    for way in ("--registry azureml:PLACE", "AZUREML_ARM_SUBSCRIPTION", "config.json", "an AzureML job"):
        assert way in str(refused.value)


def test_azure_does_not_tell_upper_from_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (VARIABLES | OF_A_JOB).items():
        monkeypatch.setenv(name, value)

    assert job_in(Scope("1111", "Of-Variables", "InnerEye")) is not None
    assert job_in(Scope("1111", "another", "innereye")) is None
