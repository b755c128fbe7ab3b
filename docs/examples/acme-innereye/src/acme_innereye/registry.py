"""A registry: a shelf of folders, ACME_SHELF/Name/Version, for one user at a time."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

from innereye_core.errors import RegistryError
from innereye_core.manifest import copy_package, open_package
from innereye_core.model import RegisteredModel


class Shelf:
    name = "shelf"

    def register(self, package, registration, progress):
        version = len(list(_shelf().glob(f"{registration.name}/*"))) + 1
        model = registration.as_model(version, self.name, package.manifest.kind, package.manifest.created)
        self.folder(model).mkdir(parents=True)
        copy_package(package, self.folder(model), progress)
        return self.tag(model, {})

    def models(self):
        found = [RegisteredModel(**json.loads(card.read_text())) for card in _shelf().glob("*/*/card.json")]
        return sorted(found, key=lambda model: (model.name, model.version))

    def get(self, name, version):
        found = [model for model in self.models() if model.name == name and version in (None, model.version)]
        if not found:
            raise RegistryError(f"no {name}:{version or 'latest'} on the shelf")
        return found[-1]

    def folder(self, model):
        return _shelf() / model.name / str(model.version) / model.folder_name

    def fetch(self, model, folder, progress):
        copy_package(open_package(self.folder(model)), folder, progress)

    def tag(self, model, tags):
        model = replace(model, tags={**model.tags, **tags})
        (self.folder(model).parent / "card.json").write_text(json.dumps(asdict(model)))
        return model

    def delete(self, model):
        (self.folder(model).parent / "card.json").unlink()  # the folder stays: its number is not used again


def _shelf():
    return Path(os.environ["ACME_SHELF"])
