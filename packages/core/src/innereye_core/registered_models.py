"""Finds models by id or folder, and makes packages of a registry usable on this machine."""

from __future__ import annotations

import logging
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core.errors import InputError, IntegrityError, UsageError
from innereye_core.host import Host, installed_host
from innereye_core.manifest import open_package, verify
from innereye_core.model import ModelFiles, Package, RegisteredModel
from innereye_core.progress import Silent
from innereye_core.publishing import publish, refuse_existing, staged_folder, storage_errors
from innereye_core.registration import default_registry

if TYPE_CHECKING:
    from innereye_core.contract.providers import Progress, Registry

_log = logging.getLogger(__name__)

_MODEL_ID = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,254}):(?P<version>[1-9][0-9]*|latest)")


@dataclass(frozen=True)
class LoadedModel:
    """A verified package, ready to be scored with."""

    package: Package
    files: ModelFiles
    id: str | None
    """Model id; None for a folder."""
    copy: tempfile.TemporaryDirectory[str] | None = None
    """Holds the local copy of a model from a remote registry for as long as it is used."""

    @property
    def title(self) -> str:
        """The model id, or the folder."""
        return self.id or str(self.package.folder)


def parse_model_id(text: str) -> tuple[str, int | None]:
    """Name and version of a model id; the version is None for ``latest``.

    Raises:
        UsageError: it is none.
    """
    match = _MODEL_ID.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is no model id; write Name:Version, for example Prostate:892 or Prostate:latest")
    version = match["version"]
    return match["name"], None if version == "latest" else int(version)


def find_model(model_id: str, registry: str | None = None, *, host: Host | None = None) -> RegisteredModel:
    """The registered model of this id.

    Raises:
        RegistryError: there is none.
        UsageError: it is no model id.
    """
    return default_registry(host or installed_host(), registry).get(*parse_model_id(model_id))


def download(
    model_id: str,
    output: str | Path,
    registry: str | None = None,
    *,
    replace: bool = False,
    host: Host | None = None,
    progress: Progress | None = None,
) -> Package:
    """Copy a registered package to ``output/final_model`` (or ``output/final_ensemble_model``), and verify it.

    Raises:
        RegistryError: there is no such model, or the folder exists and is not to be replaced.
        IntegrityError: what arrived is not what was registered.
    """
    source = default_registry(host or installed_host(), registry)
    model = source.get(*parse_model_id(model_id))
    target = Path(output).resolve() / model.folder_name
    if not replace:
        refuse_existing(target)
    with storage_errors(str(target), doing="download"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with staged_folder(target) as staged:
            _fetch(source, model, staged, progress)
            publish(staged, target, replace=replace)
    return open_package(target)


def load_model(
    reference: str | Path,
    registry: str | None = None,
    *,
    host: Host | None = None,
    progress: Progress | None = None,
) -> LoadedModel:
    """Open a model by its folder or id, and verify every file of it.

    Raises:
        InputError: the folder is no package of this project.
        IntegrityError: a file is missing, changed, or not listed.
        RegistryError: there is no such model.
    """
    if Path(reference).is_dir():
        return _loaded(Path(reference).resolve(), None, None)
    if _MODEL_ID.fullmatch(str(reference)) is None:
        raise InputError(f"{reference}: is neither a package folder nor a model id such as Prostate:892")
    source = default_registry(host or installed_host(), registry)
    model = source.get(*parse_model_id(str(reference)))
    folder = source.folder(model)
    if folder is not None:
        return _loaded(folder, model.id, None)
    copy = tempfile.TemporaryDirectory(prefix="innereye-")
    with storage_errors(model.id, doing="download"):
        _fetch(source, model, Path(copy.name), progress)
    return _loaded(Path(copy.name), model.id, copy)


@dataclass(frozen=True)
class Verification:
    """What a check of a package found, where everything in it is as its manifest lists it."""

    title: str
    """The model id, or the folder."""
    digest: str
    files: int
    warnings: tuple[str, ...] = ()
    """One line for each unlisted file that does no harm."""


def verify_model(
    reference: str | Path,
    registry: str | None = None,
    *,
    host: Host | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check every file of a package folder or registered model against its manifest.

    Raises:
        IntegrityError: a file is missing, changed, or must not be there.
    """
    if Path(reference).is_dir():
        package = open_package(Path(reference).resolve())
        return Verification(str(package.folder), package.digest, len(package.manifest.files), verify(package))
    loaded = load_model(reference, registry, host=host, progress=progress)  # checks every file
    return Verification(loaded.title, loaded.package.digest, len(loaded.package.manifest.files))


def _fetch(registry: Registry, model: RegisteredModel, folder: Path, progress: Progress | None) -> None:
    registry.fetch(model, folder, progress or Silent())
    package = open_package(folder)
    verify(package)
    registered = model.properties.get("package_digest")
    if registered is not None and registered != package.digest:
        raise IntegrityError(f"{model.id}: arrived with digest {package.digest}, but was registered with {registered}")


def _loaded(folder: Path, model_id: str | None, copy: tempfile.TemporaryDirectory[str] | None) -> LoadedModel:
    from innereye_core.config_files import INFERENCE_CONFIG_FILE, PackagedConfig, read_inference_config

    package = open_package(folder)
    for warning in verify(package):
        _log.warning("%s", warning)
    _report_other_versions(package)
    packaged = read_inference_config(folder / INFERENCE_CONFIG_FILE)
    if not isinstance(packaged, PackagedConfig):
        raise InputError(f"{folder}: is a package that InnerEye wrote, without the settings of its network")
    code = packaged.config.extra_code_directory
    files = ModelFiles(
        config=packaged.config,
        checkpoints=tuple(folder / path for path in packaged.checkpoint_paths),
        extra_code=None if code is None else folder / code,
        folder=folder,
    )
    return LoadedModel(package, files, model_id, copy)


def _report_other_versions(package: Package) -> None:
    from innereye_core import __version__

    packaged = package.manifest.versions.get("innereye-core")
    if packaged is not None and packaged != __version__:
        _log.warning(
            "packaged with innereye-core %s, and this is %s; score.py in the package uses its own",
            packaged,
            __version__,
        )
