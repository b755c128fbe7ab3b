"""The registry ``azureml``: packages are models of an AzureML workspace."""

from __future__ import annotations

import dataclasses
import getpass
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from innereye_azureml import leases, sdk
from innereye_azureml.artifacts import Place, fetch_package, place_in_run, place_outside_runs, upload_package
from innereye_azureml.failures import DATA_SCIENTIST, TRANSIENT, ServiceError
from innereye_azureml.job import Job, job_in
from innereye_azureml.limits import MODEL_NAME_PATTERN, check_labels, check_registration
from innereye_azureml.workspace import chosen_scope, open_workspace
from innereye_core.errors import RegistryError
from innereye_core.model import Package, PackageKind, RegisteredModel, Registration

if TYPE_CHECKING:
    from innereye_azureml.sdk import RunState
    from innereye_core.contract.providers import Progress

DIGEST_PROPERTY = "package_digest"
FOLDER_PROPERTY = "package_folder"
"""Properties that models of this project have; the folder is ``final_model`` or ``final_ensemble_model``."""

_ASSET_URL = "aml://asset/"
_PAGE = 255
_PAUSES_S = (1, 2)
"""How long to wait before each further try to make a version."""


class AzureMLRegistry:
    """Keeps packages as models of a workspace; their files are artifacts of the run that they are of."""

    name = "azureml"

    def __init__(self, place: str | None = None) -> None:
        self._place = place

    def at(self, place: str) -> AzureMLRegistry:
        """The registry in SUBSCRIPTION/RESOURCE_GROUP/WORKSPACE, or in the workspace of a config.json.

        Raises:
            UsageError: the place is neither.
            InputError: the config.json cannot be used.
        """
        chosen_scope(place)
        return AzureMLRegistry(place)

    def register(self, package: Package, registration: Registration, progress: Progress) -> RegisteredModel:
        """Upload the package, and make it the next version of the name.

        Inside a job, the files go to the run that the model is of, or else to the job's own, and the model is linked to
        it. A version is made only when all files are there, so one that fails on the way leaves none.

        Raises:
            UsageError: the name, a tag, a property or the description is not acceptable.
            IntegrityError: a listed file is missing or changed.
            RegistryError: AzureML refuses or cannot be reached.
        """
        job = job_in(chosen_scope(self._place))
        kind = package.manifest.kind
        registration = dataclasses.replace(
            registration,
            properties={**registration.properties, FOLDER_PROPERTY: kind},
            description=registration.description if job is not None else _signed(registration.description),
        )
        check_registration(registration)
        workspace = self._workspace()
        run = None if job is None else _run_of(registration, job)
        place = place_outside_runs(kind) if run is None else place_in_run(workspace, run, kind)
        upload_package(workspace, package, place, progress)
        leases.check()
        return _model(_create(workspace, registration, place, run))

    def models(self) -> Sequence[RegisteredModel]:
        """Every version that this project registered, by name and ascending version."""
        with sdk.calling("list the models"):
            found = [model for model in self._client().query(count=_PAGE) if _is_ours(model)]
        return sorted(map(_model, found), key=lambda model: (model.name, model.version))

    def get(self, name: str, version: int | None) -> RegisteredModel:
        """One version; the highest for None.

        Raises:
            RegistryError: there is none, or something else registered it.
        """
        return _model(self._find(name, version))

    def folder(self, model: RegisteredModel) -> Path | None:
        """None: packages are in the workspace."""
        return None

    def fetch(self, model: RegisteredModel, folder: Path, progress: Progress) -> None:
        """Download the package's files into ``folder``, which exists and is empty.

        Raises:
            RegistryError: there is no such version, or its files cannot be had.
            IntegrityError: a file did not arrive completely.
            StorageError: the disk is full or not writable.
        """
        workspace = self._workspace()
        url = str(self._find(model.name, model.version).url)
        with sdk.calling(f"open the files of {model.id}"):
            asset = sdk.assets_client(workspace).get_asset_by_id(url.removeprefix(_ASSET_URL))
        prefixes = [artifact.prefix for artifact in asset.artifacts or []]
        if len(prefixes) != 1 or not str(prefixes[0]).endswith(f"/{model.folder_name}"):
            raise RegistryError(f"{model.id}: its files are not one {model.folder_name} folder; register it again")
        fetch_package(workspace, Place(*prefixes[0].split("/", 2)), folder, progress, model.id)

    def tag(self, model: RegisteredModel, tags: Mapping[str, str]) -> RegisteredModel:
        """Add or replace tags, and return the model as it is afterwards.

        Raises:
            UsageError: a tag is not acceptable.
            RegistryError: there is no such version, or AzureML refuses.
        """
        tagged = {**(self._find(model.name, model.version).kv_tags or {}), **tags}
        check_labels("tag", tagged)
        with sdk.calling(f"tag {model.id}", role=DATA_SCIENTIST, missing=_missing(model.id)):
            self._client().patch(model.id, body=[{"op": "replace", "path": "/kvTags", "value": tagged}])
        return self.get(model.name, model.version)

    def delete(self, model: RegisteredModel) -> None:
        """Delete a version. Its number is never used again; its files stay where they are.

        Raises:
            RegistryError: there is no such version, or AzureML refuses.
        """
        self._find(model.name, model.version)
        with sdk.calling(f"delete {model.id}", role=DATA_SCIENTIST, missing=_missing(model.id)):
            self._client().delete(model.id)

    def _workspace(self) -> Any:
        return open_workspace(self._place)

    def _client(self) -> Any:
        return sdk.models_client(self._workspace())

    def _find(self, name: str, version: int | None) -> Any:
        model_id = f"{name}:{'latest' if version is None else version}"
        if re.fullmatch(MODEL_NAME_PATTERN, name) is None:
            raise RegistryError(_missing(model_id))
        if version is None:
            with sdk.calling(f"look for {model_id}"):
                found = max(self._client().query(name=name, count=_PAGE), key=lambda each: each.version, default=None)
        else:
            with sdk.calling(f"look for {model_id}", missing=_missing(model_id)):
                found = self._client().get_by_id(model_id)
        if found is None:
            raise RegistryError(_missing(model_id))
        if not _is_ours(found):
            raise RegistryError(
                f"{found.name}:{found.version} is in AzureML, but InnerEye Deploy did not register it; "
                "see 'innereye models list --registry azureml' for those that it did"
            )
        return found


def _missing(model_id: str) -> str:
    return f"{model_id} is not in AzureML; see 'innereye models list --registry azureml'"


def _is_ours(model: Any) -> bool:
    properties = model.properties or {}
    return DIGEST_PROPERTY in properties and properties.get(FOLDER_PROPERTY) in get_args(PackageKind)


def _model(model: Any) -> RegisteredModel:
    """One of the service's models as the contract has it."""
    created: datetime | None = model.created_time
    return RegisteredModel(
        name=model.name,
        version=int(model.version),
        registry=AzureMLRegistry.name,
        folder_name=model.properties[FOLDER_PROPERTY],
        description=model.description or "",
        tags=dict(model.kv_tags or {}),
        properties=dict(model.properties),
        created="" if created is None else created.astimezone(UTC).isoformat(timespec="seconds"),
    )


def _run_of(registration: Registration, job: Job) -> RunState:
    """The run that the model is to be linked to: its own, which may be the parent of the job's, or the job's."""
    run = registration.run
    run_id = run.id if run is not None and run.source == AzureMLRegistry.name else job.run_id
    return sdk.fetch_run(sdk.submitted_run().experiment, run_id)


def _signed(description: str) -> str:
    """The description with who registers the model, since no run says it."""
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):  # a system, or a container, without a name for its user
        user = "an unknown user"
    signature = f"Registered outside AzureML by {user} at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    return f"{description} {signature}".strip()


def _create(workspace: Any, registration: Registration, place: Place, run: RunState | None) -> Any:
    """Make the version, now that its files are there.

    Where no answer came, nobody knows whether it was made. So it is looked for before the next try, and the SDK's own
    tries are off: they would make a second version.
    """
    title = f"register {registration.name}"
    run_id = None if run is None else run.id
    with sdk.calling(title, role=DATA_SCIENTIST):
        files = [{"prefix": place.prefix}]
        asset = sdk.assets_client(workspace).create_asset(registration.name, files, None, run_id=run_id)
    url = f"{_ASSET_URL}{asset.id}"
    client = sdk.models_client(workspace)
    pauses = iter(_PAUSES_S)
    while True:
        try:
            with sdk.calling(title, role=DATA_SCIENTIST), sdk.trying_once(client):
                return client.register_model(
                    name=registration.name,
                    tags=dict(registration.tags),
                    properties=dict(registration.properties),
                    description=registration.description,
                    url=url,
                    run_id=run_id,
                    experiment_name=None if run is None else run.experiment,
                    datasets=[],
                )
        except ServiceError as error:
            pause = next(pauses, None)
            if error.failure not in TRANSIENT:
                raise
            made = _made_of(url, registration.name, client)
            if made is not None:
                return made
            if pause is None:
                raise
            time.sleep(pause)


def _made_of(url: str, name: str, client: Any) -> Any:
    """The version that was made of an asset; None where there is none."""
    with sdk.calling(f"find out whether {name} was registered"):
        return next((model for model in client.query(name=name, count=_PAGE) if model.url == url), None)
