"""The packaged Conda environment as an environment of AzureML: its name, its file, its registration."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_azureml import sdk_jobs
from innereye_azureml.workspace import open_workspace
from innereye_core.errors import InputError, UsageError
from innereye_core.host import Host, installed_host
from innereye_core.packaging.environment_files import ENVIRONMENT_FILE

if TYPE_CHECKING:
    from innereye_core.contract.providers import Progress
    from innereye_core.model import Package

_MAX_NAME_LENGTH = 255
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{_MAX_NAME_LENGTH - 1}}}")
_PREFIX = "innereye-"
_RESERVED = ("azureml", "microsoft")
"""What names may not begin with: AzureML's own environments do."""


@dataclass(frozen=True)
class RegisteredEnvironment:
    """A version of an environment in a workspace."""

    name: str
    version: str

    @property
    def id(self) -> str:
        """``Name:Version``."""
        return f"{self.name}:{self.version}"


def register_environment(
    model: str | Path,
    name: str | None = None,
    *,
    registry: str,
    place: str | None = None,
    host: Host | None = None,
    progress: Progress | None = None,
) -> RegisteredEnvironment:
    """Register the environment.yml of a package in an AzureML workspace, which gives it a version.

    Args:
        model: a package folder, or a model id such as ``Prostate:892``.
        name: name of the environment; None: :func:`environment_name` of the model's name.
        registry: where model ids are looked up.
        place: the workspace, as :func:`innereye_azureml.workspace.open_workspace` takes it.
        host: what the plugins offer; None: the installed ones.
        progress: where to say how far a download is; None: nowhere.

    Raises:
        UsageError: AzureML takes no such name, or no workspace is named.
        InputError: there is no such package, or it has no environment.yml.
        IntegrityError: the package is not what its manifest says.
        RegistryError: there is no such model, or AzureML refuses or cannot be reached.
        MissingPluginError: azureml-core is not installed.
    """
    from innereye_core.registered_models import load_model

    if name is not None:
        _refuse_impossible(name)
    loaded = load_model(model, registry, host=host or installed_host(), progress=progress)
    file = packaged_environment_file(loaded.package)
    workspace = open_workspace(place)
    environment = sdk_jobs.conda_environment(name or environment_name(loaded.package.manifest.model_name), file)
    return RegisteredEnvironment(*sdk_jobs.register_environment(workspace, environment))


def environment_name(model_name: str) -> str:
    """The name of a model's environment: ``innereye-Prostate`` for Prostate."""
    return f"{_PREFIX}{model_name}"[:_MAX_NAME_LENGTH]


def packaged_environment_file(package: Package) -> Path:
    """The environment.yml of a package.

    Raises:
        InputError: it has none.
    """
    file = package.folder / ENVIRONMENT_FILE
    if not file.is_file():
        raise InputError(
            f"{package.folder}: has no {ENVIRONMENT_FILE}, without which no job can run it; package it again"
        )
    return file


def _refuse_impossible(name: str) -> None:
    if not _NAME.fullmatch(name) or name.lower().startswith(_RESERVED):
        raise UsageError(
            f"--name {name!r} cannot be the name of an environment in AzureML; use letters, digits, '.', '_' and '-', "
            f"beginning with a letter or digit, {_MAX_NAME_LENGTH} at most, and not with AzureML or Microsoft"
        )
