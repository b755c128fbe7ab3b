"""Registered models, and the assets that say which artifacts they are made of."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field

from azureml_server.messages import Json, Refusal, timestamp, utc_now

ASSET_URL = "aml://asset/"


@dataclass(frozen=True)
class Asset:
    """Artifacts under a prefix, with a name."""

    asset_id: str
    name: str
    prefixes: tuple[str, ...]
    run_id: str | None
    document: Json

    def to_json(self) -> Json:
        """As model management writes it."""
        return {**self.document, "id": self.asset_id}


@dataclass
class Model:
    """One version of a registered model."""

    name: str
    version: int
    asset: Asset
    tags: dict[str, str]
    properties: dict[str, str]
    description: str | None
    run_id: str | None
    experiment: str | None
    document: Json
    created: dt.datetime = field(default_factory=utc_now)
    modified: dt.datetime = field(default_factory=utc_now)

    @property
    def model_id(self) -> str:
        """``Name:Version``."""
        return f"{self.name}:{self.version}"

    def to_json(self) -> Json:
        """As model management writes it."""
        return {
            "framework": None,
            "frameworkVersion": None,
            "datasets": [],
            "unpack": False,
            "parentModelId": None,
            "derivedModelIds": None,
            "sampleInputData": None,
            "sampleOutputData": None,
            "resourceRequirements": None,
            **self.document,
            "id": self.model_id,
            "name": self.name,
            "version": self.version,
            "url": f"{ASSET_URL}{self.asset.asset_id}",
            "kvTags": self.tags,
            "properties": self.properties,
            "description": self.description,
            "runId": self.run_id,
            "experimentName": self.experiment,
            "createdTime": timestamp(self.created),
            "modifiedTime": timestamp(self.modified),
            "createdBy": {"userObjectId": "user", "userTenantId": "tenant", "userName": "Test User"},
        }


class ModelStore:
    """Models and assets of a workspace. Versions count from 1 for each name and are never used again."""

    def __init__(self) -> None:
        self._assets: dict[str, Asset] = {}
        self._models: dict[str, Model] = {}
        self._versions: dict[str, int] = {}

    def create_asset(self, document: Json) -> Asset:
        """Make an asset.

        Raises:
            Refusal: It names no artifacts (400).
        """
        prefixes = tuple(str(entry["prefix"]) for entry in document.get("artifacts") or [] if entry.get("prefix"))
        if not document.get("name") or not prefixes:
            raise Refusal(400, "BadRequest", "An asset needs a name, and artifacts with a prefix.")
        asset = Asset(uuid.uuid4().hex, document["name"], prefixes, document.get("runid"), document)
        self._assets[asset.asset_id] = asset
        return asset

    def asset(self, asset_id: str) -> Asset:
        """The asset.

        Raises:
            Refusal: There is none (404).
        """
        if asset_id not in self._assets:
            raise Refusal(404, "AssetNotFound", f"The asset with id {asset_id} was not found.")
        return self._assets[asset_id]

    def register(self, document: Json) -> Model:
        """Make the next version of a model.

        Raises:
            Refusal: The name or the asset is not acceptable (400).
        """
        name, url = document.get("name") or "", document.get("url") or ""
        if not _acceptable(name):
            raise Refusal(
                400,
                "BadRequest",
                f"Model name {name!r} is not valid: it starts with a letter or digit, has only letters, digits, '.', "
                "'_' and '-', and at most 255 characters.",
            )
        if not url.startswith(ASSET_URL) or url.removeprefix(ASSET_URL) not in self._assets:
            raise Refusal(400, "BadRequest", f"The model's url {url!r} names no asset.")
        version = self._versions[name] = self._versions.get(name, 0) + 1
        model = Model(
            name=name,
            version=version,
            asset=self._assets[url.removeprefix(ASSET_URL)],
            tags=_strings(document.get("kvTags")),
            properties=_strings(document.get("properties")),
            description=document.get("description"),
            run_id=document.get("runId"),
            experiment=document.get("experimentName"),
            document={key: value for key, value in document.items() if value is not None},
        )
        self._models[model.model_id] = model
        return model

    def get(self, model_id: str) -> Model:
        """The model.

        Raises:
            Refusal: There is none (404).
        """
        if model_id not in self._models:
            raise Refusal(404, "ModelNotFound", f"Model with id {model_id} was not found.")
        return self._models[model_id]

    def delete(self, model_id: str) -> None:
        """Forget the model; its version is not used again, and its artifacts stay.

        Raises:
            Refusal: There is none (404).
        """
        self.get(model_id)
        del self._models[model_id]

    def models(self) -> list[Model]:
        """All models, newest first."""
        return list(reversed(self._models.values()))

    def patch(self, model_id: str, operations: list[Json]) -> Model:
        """Change a model by JSON patch operations on ``/kvTags``, ``/properties`` and ``/description``.

        Raises:
            Refusal: There is no such model (404), or an operation is about something else, or takes a property away
                or changes one (400).
        """
        model = self.get(model_id)
        for operation in operations:
            path, value = operation.get("path"), operation.get("value")
            if operation.get("op") not in ("add", "replace"):
                raise Refusal(400, "BadRequest", f"The operation {operation.get('op')!r} is not known.")
            if path == "/kvTags":
                model.tags = _strings(value)
            elif path == "/description":
                model.description = value
            elif path == "/properties":
                added = _strings(value)
                if any(added.get(key) != kept for key, kept in model.properties.items()):
                    raise Refusal(400, "BadRequest", "Properties of a model cannot be changed or taken away.")
                model.properties = added
            else:
                raise Refusal(400, "BadRequest", f"{path!r} cannot be changed.")
        model.modified = utc_now()
        return model


def _acceptable(name: str) -> bool:
    allowed = set("._-")
    return (
        0 < len(name) <= 255
        and name.isascii()
        and name[0].isalnum()
        and all(character.isalnum() or character in allowed for character in name)
    )


def _strings(values: Json | None) -> dict[str, str]:
    return {str(key): str(value) for key, value in (values or {}).items()}
