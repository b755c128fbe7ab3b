"""The one place that imports azureml: opens workspaces and runs, makes clients, translates what the SDK raises.

What is returned are the SDK's own objects. Whoever calls them does so inside :func:`calling`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from innereye_azureml.authentication import Authentication, InteractiveLogin, ManagedIdentity, ServicePrincipal, Token
from innereye_azureml.failures import DATA_SCIENTIST, READER, detail, service_error
from innereye_azureml.scrubbing import scrub
from innereye_core.errors import InnerEyeError, MissingPluginError

if TYPE_CHECKING:
    from innereye_azureml.job import Scope

_log = logging.getLogger(__name__)

RUN_ORIGIN = "ExperimentRun"
"""Origin of the artifacts of runs; their container is :func:`artifact_container`."""

_CLOUD = "AzureCloud"
_CHATTER = ("azureml", "azure", "azure.core", "msrest", "msal", "urllib3", "requests_oauthlib", "cli", "knack")
"""Loggers that say nothing a person could use, some of it with SAS URLs: urllib3 warns of each retry that way."""


@contextlib.contextmanager
def calling(doing: str, *, role: str = READER, missing: str | None = None) -> Iterator[None]:
    """Turn whatever the SDK raises inside into an error of one line without secrets; our own errors pass.

    Args:
        doing: what is tried, as it reads after "cannot".
        role: the built-in role that it takes, which is what people are told to ask for where it is not permitted.
        missing: the whole message where AzureML answers that there is no such thing.

    Raises:
        ServiceError: the SDK raised.
    """
    try:
        yield
    except InnerEyeError:
        raise
    except Exception as error:
        _log.debug("cannot %s: %s", doing, detail(error))
        raise service_error(error, doing, role, missing) from None  # no traceback shows what the SDK raised


# --- workspaces and runs ----------------------------------------------------------------------------------------------


def open_workspace(scope: Scope, authentication: Authentication) -> Any:
    """The ``azureml.core.Workspace`` of this scope.

    Raises:
        ServiceError: there is none, it cannot be reached, or the login fails.
        MissingPluginError: azureml-core cannot be imported.
    """
    load()
    from azureml.core import Workspace

    nowhere = f"there is no workspace {scope} that this login may see; check the names, and the role {READER!r} on it"
    with calling(f"open workspace {scope}", missing=nowhere), _stdout_kept_clean():
        workspace = Workspace(
            scope.subscription,
            scope.resource_group,
            scope.workspace,
            auth=_sdk_authentication(authentication),
            _cloud=_CLOUD,
        )
        workspace.service_context  # noqa: B018 - asks where the services are, and fails here if it must
        return workspace


def submitted_run() -> Any:
    """The ``azureml.core.Run`` that this process is the job of; the SDK keeps it, so what it says may be old.

    Raises:
        ServiceError: it cannot be fetched.
        MissingPluginError: azureml-core cannot be imported.
    """
    load()
    from azureml.core import Run

    with calling("open the current run"), _stdout_kept_clean():
        return Run.get_context(allow_offline=False)


@dataclass(frozen=True)
class RunState:
    """What the service says about a run at some moment."""

    id: str
    name: str
    status: str
    """NotStarted, Queued, Preparing, Running, Finalizing, Completed, Failed, Canceled, …"""
    tags: Mapping[str, str]
    properties: Mapping[str, str]
    parent: str | None
    experiment: str
    """Name of its experiment."""
    container: str
    """The container of its artifacts, below :data:`RUN_ORIGIN`."""


@dataclass(frozen=True)
class RunDetails:
    """How a run was started; this does not change."""

    arguments: tuple[str, ...]
    """Of its script."""
    datasets: tuple[str, ...]
    """Names of its input datasets, or else their ids."""


def fetch_run(experiment: Any, run_id: str) -> RunState:
    """A run of an experiment, as it is now.

    Raises:
        ServiceError: there is none, or it cannot be fetched.
    """
    with calling(f"open run {run_id}", missing=_no_run(experiment, run_id)):
        return _run_state(experiment, _run_client(experiment, run_id).get_run())


def fetch_details(experiment: Any, run_id: str) -> RunDetails:
    """How a run was started.

    Raises:
        ServiceError: there is no such run, or it cannot be fetched.
    """
    with calling(f"open the details of run {run_id}", missing=_no_run(experiment, run_id)):
        found = _run_client(experiment, run_id).get_runstatus()
    definition = _mapping(found.run_definition)
    inputs = [
        _mapping(_mapping(_mapping(each).get("dataLocation")).get("dataset"))
        for each in _mapping(definition.get("data")).values()
    ]
    names = [each.get("name") for each in inputs]
    identifiers = [each.identifier for each in found.input_datasets or [] if each.identifier is not None]
    ids = [each.registered_id or each.saved_id for each in identifiers]
    arguments = definition.get("arguments")
    return RunDetails(
        arguments=tuple(map(str, arguments)) if isinstance(arguments, list) else (),
        datasets=tuple(map(str, filter(None, names))) or tuple(map(str, filter(None, ids))),
    )


def fetch_children(experiment: Any, run_id: str) -> list[RunState]:
    """The child runs of a run, as they are now, in no particular order.

    Raises:
        ServiceError: there is no such run, or they cannot be fetched.
    """
    with calling(f"list the children of run {run_id}", missing=_no_run(experiment, run_id)):
        return [_run_state(experiment, child) for child in _run_client(experiment, run_id).get_child_runs(run_id)]


def add_tags(experiment: Any, run_id: str, tags: Mapping[str, str]) -> RunState:
    """Add or replace tags of a run, and return it as it is afterwards.

    Raises:
        ServiceError: there is no such run, or AzureML refuses.
    """
    from azureml._restclient.models.create_run_dto import CreateRunDto

    with calling(f"tag run {run_id}", role=DATA_SCIENTIST, missing=_no_run(experiment, run_id)):
        return _run_state(
            experiment, _run_client(experiment, run_id).patch_run(CreateRunDto(run_id=run_id, tags=dict(tags)))
        )


def _run_client(experiment: Any, run_id: str) -> Any:
    from azureml._restclient.run_client import RunClient

    return RunClient(experiment.workspace.service_context, experiment.name, run_id, experiment_id=experiment.id)


def _run_state(experiment: Any, dto: Any) -> RunState:
    return RunState(
        id=dto.run_id,
        name=dto.display_name or dto.name or dto.run_id,
        status=dto.status or "unknown",
        tags={key: value or "" for key, value in (dto.tags or {}).items()},
        properties={key: value or "" for key, value in (dto.properties or {}).items()},
        parent=dto.parent_run_id,
        experiment=experiment.name,
        container=dto.data_container_id,
    )


def _mapping(value: object) -> Mapping[str, Any]:
    """A JSON object; an empty one where it is something else."""
    return value if isinstance(value, Mapping) else {}


def _no_run(experiment: Any, run_id: str) -> str:
    return f"there is no run {run_id} in experiment {experiment.name}"


# --- clients ----------------------------------------------------------------------------------------------------------


def artifacts_client(workspace: Any) -> Any:
    """The client of files that belong to runs and models."""
    from azureml._restclient.artifacts_client import ArtifactsClient

    return ArtifactsClient(workspace.service_context)


def assets_client(workspace: Any) -> Any:
    """The client of assets: which artifacts belong to a model."""
    from azureml._restclient.assets_client import AssetsClient

    return AssetsClient(workspace.service_context)


def models_client(workspace: Any) -> Any:
    """The client of registered models."""
    from azureml._restclient.models_client import ModelsClient

    return ModelsClient(workspace.service_context)


@contextlib.contextmanager
def trying_once(client: Any) -> Iterator[None]:
    """Keep a client from trying again what fails, for requests that must not be carried out twice."""
    retries = client.retries
    client.retries = 0
    try:
        yield
    finally:
        client.retries = retries


def blob_transport() -> Any:
    """A pool of connections for blob clients; to be used in a ``with``."""
    from azure.core.pipeline.transport import RequestsTransport

    return RequestsTransport()


def blob_client(sas_url: str, transport: Any, piece_bytes: int = 8 << 20) -> Any:
    """The client of one blob, which reads in pieces, and tries again a few times, some seconds apart."""
    from azureml._vendor.azure_storage.blob import BlobClient, ExponentialRetry

    retries = ExponentialRetry(initial_backoff=1, increment_base=2, retry_total=3, random_jitter_range=1)
    return BlobClient.from_blob_url(
        sas_url,
        transport=transport,
        retry_policy=retries,
        max_single_get_size=piece_bytes,
        max_chunk_get_size=piece_bytes,
    )


# --- the import -------------------------------------------------------------------------------------------------------


@functools.cache
def load() -> None:
    """Import azureml-core, and have it say nothing.

    Raises:
        MissingPluginError: it cannot be imported.
    """
    with warnings.catch_warnings(), _stdout_kept_clean():
        warnings.simplefilter("ignore")
        try:
            import azureml._vendor.azure_storage.blob
            import azureml.core  # noqa: F401
        except ImportError as error:
            raise MissingPluginError(
                f"azureml-core cannot be imported ({scrub(str(error))}): pip install innereye-azureml"
            ) from None
    for name in _CHATTER:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def part(name: str) -> Any:
    """A module of the SDK, such as ``core.compute``.

    Raises:
        MissingPluginError: azureml-core cannot be imported.
    """
    load()
    return importlib.import_module(f"azureml.{name}")


def _sdk_authentication(authentication: Authentication) -> Any:
    from azureml.core import authentication as azureml

    match authentication:
        case Token(token):
            return azureml.TokenAuthentication(lambda audience: token, cloud=_CLOUD)
        case ServicePrincipal(tenant_id, client_id, secret):
            return azureml.ServicePrincipalAuthentication(tenant_id, client_id, secret, cloud=_CLOUD)
        case ManagedIdentity(client_id):
            identity = {} if client_id is None else {"client_id": client_id}
            return azureml.MsiAuthentication(cloud=_CLOUD, identity_config=identity)
        case InteractiveLogin(tenant_id):
            return azureml.InteractiveLoginAuthentication(tenant_id=tenant_id, cloud=_CLOUD)


def _stdout_kept_clean() -> contextlib.AbstractContextManager[object]:
    """Send what the SDK prints to stderr; not to be used in threads, since it swaps stdout for the whole process."""
    return contextlib.redirect_stdout(sys.stderr)
