"""What the SDK does for jobs and environments: :mod:`innereye_azureml.sdk` continued, for workspaces opened by it.

What is returned are the SDK's own objects, or plain values. Errors of the SDK come out as
:class:`innereye_azureml.failures.ServiceError`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from innereye_azureml import sdk
from innereye_azureml.failures import DATA_SCIENTIST, READER, ServiceError
from innereye_azureml.scrubbing import scrub

_SLOWEST_BYTES_PER_S = 100_000
"""How slow an upload may be before it is given up."""


@contextlib.contextmanager
def _calling(doing: str, *, role: str = READER, missing: str | None = None) -> Iterator[None]:
    """:func:`innereye_azureml.sdk.calling`, with stdout kept for results: the SDK prints now and then."""
    with sdk.calling(doing, role=role, missing=missing), contextlib.redirect_stdout(sys.stderr):
        yield


# --- before a job -----------------------------------------------------------------------------------------------------


def machine_size(workspace: Any, compute: str) -> str | None:
    """The size of the machines of a compute, empty where it states none; None where there is no such compute."""
    with _calling(f"look up compute {compute}"):
        try:
            found = sdk.part("core.compute").ComputeTarget(workspace, compute)
        except sdk.part("exceptions").ComputeTargetException as error:
            if "ComputeTargetNotFound" in str(error):
                return None
            raise
        return str(getattr(found, "vm_size", None) or "")


def compute_names(workspace: Any) -> list[str]:
    """The names of the workspace's computes, sorted."""
    with _calling("list the computes of the workspace"):
        return sorted(workspace.compute_targets)


def conda_environment(name: str, file: Path, *, cuda: bool = False) -> Any:
    """The ``azureml.core.Environment`` that a Conda file describes, as it is written there.

    Args:
        name: name of the environment.
        file: environment.yml.
        cuda: whether the image has CUDA, so that containers see a GPU.
    """
    environment = sdk.part("core").Environment(name)
    with _calling(f"read {file}"):
        # Environment.from_conda_specification would add an old Python where it does not recognise the file's own.
        environment.python.conda_dependencies = sdk.part("core.conda_dependencies").CondaDependencies(str(file))
    environment.environment_variables = {}  # else the SDK's example goes with it
    if cuda:
        environment.docker.base_image = sdk.part("core.environment").DEFAULT_GPU_IMAGE
    return environment


def register_environment(workspace: Any, environment: Any) -> tuple[str, str]:
    """Register an environment, and tell its name and version."""
    with _calling(f"register environment {environment.name}", role=DATA_SCIENTIST):
        registered = environment.register(workspace)
    return str(registered.name), str(registered.version)


# --- a job ------------------------------------------------------------------------------------------------------------


def submit(
    workspace: Any,
    run_id: str,
    folder: Path,
    command: Sequence[str],
    *,
    experiment: str,
    compute: str,
    environment: Any,
) -> Any:
    """Send a folder, submit a job that runs a script in it, and return the ``azureml.core.Run``.

    Args:
        workspace: the workspace.
        run_id: id of the new run.
        folder: all of it is sent; scripts run with their copy of it as the current folder.
        command: a Python script in the folder, and its arguments.
        experiment: name of the experiment, which is made where there is none.
        compute: name of the compute.
        environment: from :func:`conda_environment`.

    Raises:
        ServiceError: it was not submitted.
    """
    script, *arguments = command
    config = sdk.part("core").ScriptRunConfig(
        source_directory=str(folder),
        script=script,
        arguments=arguments,
        compute_target=compute,
        environment=environment,
        docker_runtime_config=sdk.part("core.runconfig").DockerConfiguration(use_docker=True),
    )
    with _calling(f"submit run {run_id}", role=DATA_SCIENTIST):
        made = sdk.part("core").Experiment(workspace, experiment)
    try:
        with _calling(f"submit run {run_id}", role=DATA_SCIENTIST), _limits_that_fit(folder), _nothing_about_git():
            return made.submit(config, run_id=run_id)
    except ServiceError:
        # Where only the answer was lost, the run is there: nobody else gives runs this id.
        with contextlib.suppress(ServiceError), _calling(f"open run {run_id}"):
            return sdk.part("core.run").get_run(made, run_id, rehydrate=False, clean_up=False)
        raise


@contextlib.contextmanager
def _limits_that_fit(folder: Path) -> Iterator[None]:
    """Raise the SDK's own limits on what is sent with a job (300 MB, 2000 files, 5 minutes for 50 files)."""
    sdk_limits = sdk.part("_restclient.snapshots_client")
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    seconds = sum(sizes) // _SLOWEST_BYTES_PER_S
    needed = {
        "SNAPSHOT_MAX_SIZE_BYTES": sum(sizes),
        "SNAPSHOT_MAX_FILES": len(sizes),
        "AZUREML_SNAPSHOT_DEFAULT_TIMEOUT": seconds,
        "TIMEOUT": seconds,
    }
    usual = {name: getattr(sdk_limits, name) for name in needed}
    for name, value in needed.items():
        setattr(sdk_limits, name, max(value, usual[name]))
    try:
        yield
    finally:
        for name, value in usual.items():
            setattr(sdk_limits, name, value)


@contextlib.contextmanager
def _nothing_about_git() -> Iterator[None]:
    """Keep the SDK from sending the address, branch and commit of a Git repository around the temporary folder."""
    tracking = sdk.part("_base_sdk_common.tracking").global_tracking_info_registry
    providers, tracking.providers = tracking.providers, []
    try:
        yield
    finally:
        tracking.providers = providers


def portal_url(run: Any) -> str:
    """The page of a run."""
    return str(run.get_portal_url())


# --- after a job ------------------------------------------------------------------------------------------------------


def error_message(run: Any) -> str:
    """What a run says about its failure, in one line without secrets; empty where it says nothing."""
    with _calling(f"ask why run {run.id} failed"):
        error = (run.get_details().get("error") or {}).get("error") or {}
    return scrub(" ".join(str(error.get("message") or "").split()))


def log_lines(run: Any) -> list[str]:
    """The lines of a run's log, without secrets and control characters; none where it has no log."""
    with _calling(f"read the log of run {run.id}"):
        logs = run.get_details()["logFiles"]
        name = _main_log(list(logs))
        if name is None:
            return []
        with sdk.blob_transport() as transport:
            content = sdk.blob_client(logs[name], transport).download_blob().readall()
    lines = scrub(content.decode("utf-8", errors="replace")).splitlines()
    return ["".join(letter if letter.isprintable() else " " for letter in line).rstrip() for line in lines]


def _main_log(names: list[str]) -> str | None:
    """What the script printed; where it never started, the log of the last step before it, such as building the image.

    The names of those begin with the number of the step: azureml-logs/20_image_build_log.txt.
    """
    for folder in ("user_logs/", "azureml-logs/"):
        found = sorted(name for name in names if name.startswith(folder))
        if found:
            return found[0] if folder == "user_logs/" else found[-1]
    return None


def fetch_file(run: Any, name: str, target: Path) -> None:
    """Write a file that a run uploaded to ``target``.

    Raises:
        ServiceError: there is none, or it cannot be fetched as long as it was announced.
    """
    missing = f"run {run.id} has no {name}; see {portal_url(run)}"
    with _calling(f"download {name} of run {run.id}", missing=missing):
        run.download_file(name, str(target))
