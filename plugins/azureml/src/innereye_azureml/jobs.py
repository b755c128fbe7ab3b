"""Scores a study as an AzureML job: checks what can be checked here, submits, waits, and fetches the segmentation."""

from __future__ import annotations

import logging
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from innereye_azureml import sdk, sdk_jobs
from innereye_azureml.environments import environment_name, packaged_environment_file
from innereye_azureml.failures import TRANSIENT, ServiceError
from innereye_azureml.results import check_segmentation, keep, prepare_folder
from innereye_azureml.snapshots import RESULT, Snapshot, make_snapshot, read_study
from innereye_azureml.workspace import open_workspace
from innereye_core.errors import RegistryError, UsageError
from innereye_core.host import Host, installed_host
from innereye_core.progress import Silent
from innereye_core.publishing import staged_folder

if TYPE_CHECKING:
    from innereye_core.contract.providers import Progress
    from innereye_core.registered_models import LoadedModel

_log = logging.getLogger(__name__)

_EXPERIMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
"""AzureML's rule, but shorter: the names of runs begin with it."""
_COMPLETED = "Completed"
_FINAL = frozenset({_COMPLETED, "Failed", "Canceled"})
_LOG_LINES_SHOWN = 20
_CHECK = re.compile(r"(?:warning|repaired|unchecked): .*")
"""What score.py says about images that are not quite as the model expects them."""

_FIRST_WAIT_S, _LONGEST_WAIT_S, _WAIT_GROWTH = 1.0, 20.0, 1.3
_PATIENCE_S = 600.0
"""For how long AzureML may be out of reach while a job runs."""


@dataclass(frozen=True)
class ScoredStudy:
    """What came back from a job."""

    run: str
    """Id of the run."""
    status: str
    segmentation: Path
    portal_url: str
    """The page of the run."""


@dataclass(frozen=True)
class Target:
    """Where a job runs."""

    compute: str
    """Its name."""
    experiment: str
    """Its name; made where there is none."""
    place: str | None = None
    """The workspace, as :func:`innereye_azureml.workspace.open_workspace` takes it."""


def score_as_job(
    model: str | Path,
    images: Sequence[Path],
    target: Target,
    *,
    registry: str,
    download: Path,
    say: Callable[[str], None],
    host: Host | None = None,
    progress: Progress | None = None,
) -> ScoredStudy:
    """Segment one study on a compute of an AzureML workspace.

    Everything that can be refused is refused before anything is sent. The job runs the package's own score.py in the
    environment of the package.

    Args:
        model: a package folder, or a model id such as ``Prostate:892``.
        images: one file per image channel, in the order of the model's config.
        target: where the job runs.
        registry: where model ids are looked up.
        download: the folder that gets segmentation.nii.gz, or segmentation_001.nii.gz, … where that exists.
        say: told, line by line, which run it is and what happens to it.
        host: what the plugins offer; None: the installed ones.
        progress: where to say how far it is; None: nowhere.

    Raises:
        UsageError: the name of the experiment or of the workspace is not possible.
        InputError: an image cannot be used, their number is wrong, or there is no such package.
        IntegrityError: the package is not what its manifest says, or what came back is no segmentation of the images.
        RegistryError: there is no such model or compute, AzureML refuses or cannot be reached, or the job fails.
        MissingPluginError: innereye-imaging or azureml-core is not installed.
        StorageError: the result cannot be written.
    """
    from innereye_core.registered_models import load_model

    host, progress = host or installed_host(), progress or Silent()
    if not _EXPERIMENT_NAME.fullmatch(target.experiment):
        raise UsageError(
            f"{target.experiment!r} cannot be the name of an experiment; use letters, digits, '-' and '_', "
            "beginning with a letter or digit, 100 at most"
        )
    loaded = load_model(model, registry, host=host, progress=progress)
    study = read_study(images, loaded.files.config, host)
    prepare_folder(download)
    workspace = open_workspace(target.place)
    machine = sdk_jobs.machine_size(workspace, target.compute)
    if machine is None:
        there = ", ".join(sdk_jobs.compute_names(workspace)) or "none"
        raise RegistryError(f"workspace {workspace.name} has no compute {target.compute!r}; it has: {there}")
    with tempfile.TemporaryDirectory(prefix="innereye-") as folder:
        snapshot = make_snapshot(loaded, study, Path(folder), progress)
        run = _submit(workspace, loaded, snapshot, target, machine, say, progress)
    url = sdk_jobs.portal_url(run)
    say(f"run {run.id}: {url}")
    _wait(run, url, say)
    _relay_checks(run, url, say)
    with staged_folder(download / PurePosixPath(RESULT).name) as staged:
        arrived = staged / PurePosixPath(RESULT).name
        sdk_jobs.fetch_file(run, RESULT, arrived)
        check_segmentation(arrived, study[0].grid, host)
        return ScoredStudy(run.id, _COMPLETED, keep(arrived, download), url)


def _submit(
    workspace: Any,
    model: LoadedModel,
    snapshot: Snapshot,
    target: Target,
    machine: str,
    say: Callable[[str], None],
    progress: Progress,
) -> Any:
    manifest = model.package.manifest
    environment = sdk_jobs.conda_environment(
        environment_name(manifest.model_name), packaged_environment_file(model.package), cuda=_has_gpu(machine)
    )
    run_id = f"{target.experiment}_{int(time.time())}_{secrets.token_hex(4)}"
    size = f"{snapshot.size_bytes / 1e6:.1f} MB"
    say(f"run {run_id}: sending {model.title} and the images ({size}) to {workspace.name}, for {target.compute}")
    with progress.track(f"send {size}", 1) as sent:
        run = sdk_jobs.submit(
            workspace,
            run_id,
            snapshot.folder,
            snapshot.command,
            experiment=target.experiment,
            compute=target.compute,
            environment=environment,
        )
        sent(1)
    tags = {"package_digest": model.package.digest} | ({} if model.id is None else {"model_id": model.id})
    try:
        sdk.add_tags(run.experiment, run.id, tags)
    except ServiceError as error:  # it runs by now
        _log.warning("run %s goes on without tags: %s", run.id, error)
    return run


def _has_gpu(machine: str) -> bool:
    """Whether machines of this size have a GPU: Azure calls all that do N-something."""
    return machine.lower().startswith("standard_n")


def _wait(run: Any, url: str, say: Callable[[str], None]) -> None:
    """Say each new state of a run, until it has completed.

    Raises:
        RegistryError: it failed or was canceled, or AzureML could not be asked for long.
        KeyboardInterrupt: the run goes on.
    """
    try:
        final = _follow(run, say)
    except ServiceError as error:
        raise ServiceError(f"{error}; run {run.id} goes on without being watched: see {url}", error.failure) from None
    except KeyboardInterrupt:
        say(f"run {run.id} goes on; when it has completed, {RESULT} is on its page: {url}")
        raise
    if final != _COMPLETED:
        for line in [line for line in _log_lines(run) if line][-_LOG_LINES_SHOWN:]:
            say(f"log: {line}")
        raise RegistryError(f"run {run.id} is {final}{_reason(run)}; see its log, and its page {url}")


def _follow(run: Any, say: Callable[[str], None]) -> str:
    """Say each new state of a run until there is a final one, which is returned."""
    known, wait, out_of_reach_since = "", _FIRST_WAIT_S, None
    while True:
        try:
            state = sdk.fetch_run(run.experiment, run.id).status
        except ServiceError as error:
            now = time.monotonic()
            out_of_reach_since = out_of_reach_since or now
            if error.failure not in TRANSIENT or now - out_of_reach_since > _PATIENCE_S:
                raise
            _log.info("%s", error)
        else:
            out_of_reach_since = None
            if state != known:
                say(f"run {run.id}: {state}")
            if state in _FINAL:
                return state
            known = state
        time.sleep(wait)
        wait = min(wait * _WAIT_GROWTH, _LONGEST_WAIT_S)


def _relay_checks(run: Any, url: str, say: Callable[[str], None]) -> None:
    """Say again what the job said about the images, which whoever uses the segmentation must know."""
    lines = _log_lines(run)
    if not lines:
        _log.warning("what the job says about the images is not known here: see the log of run %s at %s", run.id, url)
    for line in lines:
        if _CHECK.fullmatch(line):
            say(line)


def _log_lines(run: Any) -> list[str]:
    try:
        return sdk_jobs.log_lines(run)
    except ServiceError as error:
        _log.warning("%s", error)
        return []


def _reason(run: Any) -> str:
    try:
        message = sdk_jobs.error_message(run)
    except ServiceError:
        return ""
    return f": {message[:300].rstrip('.')}" if message else ""
