"""Which AzureML job this process is, by the environment variables that AzureML sets; imports no azureml."""

from __future__ import annotations

import functools
import logging
import os
from dataclasses import dataclass

_log = logging.getLogger(__name__)

_NEEDED = (
    "AZUREML_ARM_SUBSCRIPTION",
    "AZUREML_ARM_RESOURCEGROUP",
    "AZUREML_ARM_WORKSPACE_NAME",
    "AZUREML_ARM_PROJECT_NAME",
    "AZUREML_RUN_ID",
    "AZUREML_SERVICE_ENDPOINT",
    "AZUREML_RUN_TOKEN",
)
_OFFLINE_RUN = "OfflineRun"


@dataclass(frozen=True)
class Scope:
    """What names a workspace."""

    subscription: str
    resource_group: str
    workspace: str

    def __str__(self) -> str:
        return f"{self.subscription}/{self.resource_group}/{self.workspace}"

    def names_the_same(self, other: Scope) -> bool:
        """Whether both are the same workspace; Azure does not tell upper from lower case in these names."""
        return str(self).casefold() == str(other).casefold()


@dataclass(frozen=True)
class Job:
    """The AzureML job that this process is part of."""

    run_id: str
    scope: Scope


def current_job() -> Job | None:
    """The job that this process is part of; None, with a warning where it looks like half of one, outside jobs."""
    run_id = os.environ.get("AZUREML_RUN_ID")
    if not run_id:
        return None
    if run_id.startswith(_OFFLINE_RUN):
        _warn_once(f"AZUREML_RUN_ID names the offline run {run_id}, so this counts as being outside AzureML")
        return None
    missing = [name for name in _NEEDED if not os.environ.get(name)]
    if missing:
        _warn_once(
            f"AZUREML_RUN_ID is set, but {', '.join(missing)} not, so this counts as being outside AzureML; "
            "set them, or unset AZUREML_RUN_ID"
        )
        return None
    subscription, resource_group, workspace = (os.environ[name] for name in _NEEDED[:3])
    return Job(run_id, Scope(subscription, resource_group, workspace))


def job_in(scope: Scope) -> Job | None:
    """The job that this process is part of, if it is one of this workspace."""
    job = current_job()
    return job if job is not None and job.scope.names_the_same(scope) else None


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning("%s", message)
