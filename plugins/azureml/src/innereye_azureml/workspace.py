"""Which AzureML workspace is meant, and how it is opened."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from innereye_azureml import sdk
from innereye_azureml.authentication import configured_authentication
from innereye_azureml.job import Scope, current_job, job_in
from innereye_core.config_files import read_json_object
from innereye_core.errors import InputError, UsageError

CONFIG_FILE = "config.json"

_VARIABLES = ("AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_RESOURCEGROUP", "AZUREML_ARM_WORKSPACE_NAME")
_CONFIG_KEYS = ("subscription_id", "resource_group", "workspace_name")
_CONFIG_FOLDER = ".azureml"
_PLACES = "SUBSCRIPTION/RESOURCE_GROUP/WORKSPACE, or the path of a config.json"


def open_workspace(place: str | None = None) -> Any:
    """The ``azureml.core.Workspace`` that is meant, opened once per process.

    Args:
        place: SUBSCRIPTION/RESOURCE_GROUP/WORKSPACE, or the path of a config.json. None: the current job's workspace,
            else that of the variables ``AZUREML_ARM_*``, else that of a config.json in this folder or above.

    Raises:
        UsageError: no workspace is named, or not completely; or it is not clear how to log in.
        InputError: the config.json cannot be used.
        RegistryError: there is no such workspace, it cannot be reached, or the login fails.
        MissingPluginError: azureml-core cannot be imported.
    """
    return _opened(chosen_scope(place))


def chosen_scope(place: str | None = None) -> Scope:
    """What names the workspace that is meant; see :func:`open_workspace`. Asks nobody."""
    if place is not None:
        return parse_place(place)
    job = current_job()
    scope = job.scope if job is not None else _scope_of_environment()
    if scope is not None:
        return scope
    config = _config_above(Path.cwd())
    if config is None:
        raise UsageError(
            f"which AzureML workspace? Give --registry azureml:PLACE, where PLACE is {_PLACES}; or set "
            f"{', '.join(_VARIABLES)}; or put the workspace's {CONFIG_FILE} into this folder or one above; "
            "or run as an AzureML job"
        )
    return read_config(config)


def parse_place(place: str) -> Scope:
    """The scope that ``--registry azureml:PLACE`` names.

    Raises:
        UsageError: it names none.
        InputError: the config.json cannot be used.
    """
    path = Path(place).expanduser()
    if path.is_file():
        return read_config(path)
    parts = place.split("/")
    if len(parts) != len(_CONFIG_KEYS) or not all(part.strip() for part in parts):
        raise UsageError(f"azureml:{place} is no workspace and no file; write azureml:PLACE, where PLACE is {_PLACES}")
    return Scope(*parts)


def read_config(path: Path) -> Scope:
    """The scope in a config.json, as it can be downloaded from the workspace's page.

    Raises:
        InputError: it is not JSON, or lacks one of the three texts.
    """
    document = read_json_object(path)
    for key in _CONFIG_KEYS:
        value = document.get(key)
        if not isinstance(value, str) or not value.strip() or "/" in value:
            raise InputError(
                f"{path}: {key}: must be a text, not {value!r}; download config.json from the workspace's page again"
            )
    return Scope(*(document[key] for key in _CONFIG_KEYS))


def _scope_of_environment() -> Scope | None:
    values = [os.environ.get(name, "") for name in _VARIABLES]
    if not any(values):
        return None
    missing = [name for name, value in zip(_VARIABLES, values, strict=True) if not value]
    if missing:
        raise UsageError(f"{', '.join(missing)} is not set; set all of {', '.join(_VARIABLES)}, or none")
    return Scope(*values)


def _config_above(folder: Path) -> Path | None:
    for place in (folder, *folder.parents):
        for path in (place / _CONFIG_FOLDER / CONFIG_FILE, place / CONFIG_FILE):
            if path.is_file():
                return path
    return None


@functools.cache
def _opened(scope: Scope) -> Any:
    if job_in(scope) is not None:
        return sdk.submitted_run().experiment.workspace
    return sdk.open_workspace(scope, configured_authentication())
