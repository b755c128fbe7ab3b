"""The way from a training run to a registered model: select, package, register, and all three as deploy.

These functions are the Python API, and what the command line calls. Each takes a run as a reference (a folder) or as an
opened :class:`~innereye_core.model.Run`, and optionally a :class:`~innereye_core.host.Host`; the installed plugins
otherwise.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core.errors import InnerEyeError, InputError
from innereye_core.folds import usable_folds
from innereye_core.host import Host, installed_host
from innereye_core.model import (
    FINAL_ENSEMBLE_MODEL,
    FINAL_MODEL,
    Package,
    PackageKind,
    RegisteredModel,
    Run,
    Selection,
)
from innereye_core.progress import Silent
from innereye_core.publishing import refuse_existing
from innereye_core.registration import RegistrationOptions, refuse_impossible, registration_of
from innereye_core.selecting import DEFAULT_POLICY, select_candidate

if TYPE_CHECKING:
    from innereye_core.config import ModelConfig
    from innereye_core.contract.providers import Progress, Registry, RunSource
    from innereye_core.packaging.plan import MemberSource, PackageOptions

_log = logging.getLogger(__name__)

REGISTRY_VARIABLE = "INNEREYE_REGISTRY"


@dataclass(frozen=True)
class SelectionOptions:
    """How the candidate is selected; the defaults are the command line's."""

    epochs_to_test: tuple[int, ...] | None = None
    """The only epochs to consider; None: those of the config, else all that have a checkpoint."""
    policy: str = DEFAULT_POLICY
    extra_code_directory: Path | None = None
    """Folder with the network's own code; None: the one that the config names, if any."""


@dataclass(frozen=True)
class Deployment:
    """A registered model with the package that it is, and the selection that it came from."""

    model: RegisteredModel
    package: Package
    run: Run
    selections: tuple[Selection, ...]
    """One, or one per fold."""
    children: tuple[Deployment, ...] = ()
    """The folds' own deployments, where this is an ensemble."""


def open_run(run: str | Path | Run, host: Host) -> Run:
    """Open a run by its reference.

    Raises:
        InputError: no run source knows it.
    """
    if isinstance(run, Run):
        return run
    for source in host.run_sources():
        found = source.open(str(run))
        if found is not None:
            return found
    raise InputError(f"{run}: no such run; give the folder that has model.yaml and checkpoints/")


def select(
    run: str | Path | Run,
    options: SelectionOptions | None = None,
    *,
    host: Host | None = None,
    progress: Progress | None = None,
) -> Selection:
    """Select the candidate of a run that is to be deployed.

    Raises:
        InputError: there is nothing to select from, or candidates cannot be evaluated.
        UsageError: there is no such policy.
    """
    host = host or installed_host()
    return _selected(open_run(run, host), options or SelectionOptions(), host, progress).selection


def package(
    run: str | Path | Run,
    selection: SelectionOptions | None = None,
    packaging: PackageOptions | None = None,
    *,
    output: str | Path | None = None,
    ensemble: bool = False,
    allow_missing_folds: bool = False,
    host: Host | None = None,
    progress: Progress | None = None,
) -> Package:
    """Select, and make ``final_model/``, or ``final_ensemble_model/`` from the folds of a parent run.

    Args:
        run: the run; with ``ensemble`` the parent run.
        selection: how candidates are selected.
        packaging: how packages are made.
        output: folder that shall hold the package; None: the run's.
        ensemble: make the ensemble of the run's folds.
        allow_missing_folds: make it even where folds are missing.
        host: what the plugins offer; None: the installed ones.
        progress: where to say how far it is; None: nowhere.

    Raises:
        InputError, IntegrityError, RegistryError, StorageError: see
            :func:`innereye_core.packaging.making.make_package`.
    """
    host = host or installed_host()
    opened = open_run(run, host)
    kind: PackageKind = FINAL_ENSEMBLE_MODEL if ensemble else FINAL_MODEL
    target = _target(opened, kind, output)
    replace = packaging is not None and packaging.replace
    if not replace:
        refuse_existing(target)
    folds = _folds(opened, allow_missing_folds, host) if ensemble else (opened,)
    sources = [_selected(fold, selection or SelectionOptions(), host, progress) for fold in folds]
    return _packaged(sources, opened, kind, target, packaging, host)


def register(
    package: str | Path | Package,
    options: RegistrationOptions | None = None,
    *,
    run: Run | None = None,
    host: Host | None = None,
) -> RegisteredModel:
    """Register a package as the next version of its name.

    The run that it was made from gets the tag ``model_id``, if it is given, or if the package still lies in its folder.

    Raises:
        InputError: the folder is no package.
        IntegrityError: a file is missing or changed.
        RegistryError: the registry refuses or cannot be reached.
        StorageError: the disk is full or not writable.
    """
    from innereye_core.manifest import open_package

    host = host or installed_host()
    opened = package if isinstance(package, Package) else open_package(Path(package))
    run = run or _run_around(opened, host)
    options = options or RegistrationOptions()
    refuse_impossible(options)
    registry = default_registry(host, options.registry, run)
    model = registry.register(opened, registration_of(opened, options, run))
    if run is not None:
        try:
            _source_of(run, host).add_tags(run, {"model_id": model.id})
        except InnerEyeError as error:  # the version is there, and its number must reach the user
            _log.warning("%s is registered, but its run does not get the tag model_id: %s", model.id, error)
            host.failed_observers.append(f"tag of run {run.id}")
    host.after_registration(model, opened)
    return model


def deploy(
    run: str | Path | Run,
    selection: SelectionOptions | None = None,
    packaging: PackageOptions | None = None,
    registration: RegistrationOptions | None = None,
    *,
    output: str | Path | None = None,
    ensemble: bool = False,
    allow_missing_folds: bool = False,
    host: Host | None = None,
    progress: Progress | None = None,
) -> Deployment:
    """Select, package and register a run, and tag it with ``model_id``.

    With ``ensemble``, each fold of the parent run deploys its own ``final_model`` first, and the ensemble of the folds'
    selected checkpoints becomes ``final_ensemble_model``, registered on the parent run. Nothing is registered before
    every package is complete.

    Raises:
        The errors of :func:`package` and :func:`register`.
    """
    host = host or installed_host()
    opened = open_run(run, host)
    registration = registration or RegistrationOptions()
    refuse_impossible(registration)
    default_registry(host, registration.registry, opened)  # a registry that is not there is refused before the work
    replace = packaging is not None and packaging.replace
    folds = _folds(opened, allow_missing_folds, host) if ensemble else ()
    places: list[tuple[Run, PackageKind, Path]] = [
        (fold, FINAL_MODEL, _target(fold, FINAL_MODEL, None if output is None else Path(output) / str(fold.fold)))
        for fold in folds
    ]
    kind: PackageKind = FINAL_ENSEMBLE_MODEL if ensemble else FINAL_MODEL
    target = _target(opened, kind, output)
    for place in (*(path for _, _, path in places), target):
        if not replace:
            refuse_existing(place)
    sources = [_selected(one, selection or SelectionOptions(), host, progress) for one in folds or (opened,)]
    packages = [
        _packaged([source], fold, fold_kind, place, packaging, host)
        for source, (fold, fold_kind, place) in zip(sources, places, strict=False)
    ]
    whole = _packaged(sources, opened, kind, target, packaging, host)
    children = tuple(
        Deployment(register(made, registration, run=fold, host=host), made, fold, (source.selection,))
        for source, (fold, _, _), made in zip(sources, places, packages, strict=False)
    )
    model = register(whole, registration, run=opened, host=host)
    return Deployment(model, whole, opened, tuple(source.selection for source in sources), children)


def default_registry(host: Host, name: str | None = None, run: Run | None = None) -> Registry:
    """The registry of this name; else ``INNEREYE_REGISTRY``, else that of the current run, else of the run's source.

    Raises:
        UsageError: there is no such registry.
        MissingPluginError: its plugin is not installed.
    """
    chosen = name or os.environ.get(REGISTRY_VARIABLE)
    if not chosen:
        current = next((found for source in host.run_sources() if (found := source.current())), run)
        chosen = "local" if current is None else _source_of(current, host).registry
    return host.registry(chosen)


# --- selecting --------------------------------------------------------------------------------------------------------


def _selected(run: Run, options: SelectionOptions, host: Host, progress: Progress | None) -> MemberSource:
    from innereye_core.packaging.plan import MemberSource

    config, extra_code = _config_of(run, options.extra_code_directory)
    selection = select_candidate(
        run, config, extra_code, options.policy, options.epochs_to_test, host, progress or Silent()
    )
    return MemberSource(run, config, extra_code, selection)


def _config_of(run: Run, extra_code_directory: Path | None) -> tuple[ModelConfig, Path | None]:
    """A run's model config, or else its parent's, and the folder of its extra code."""
    from innereye_core.config_files import MODEL_FILE, read_model_config

    home = run.folder
    if run.inherits_from is not None and not (home / MODEL_FILE).is_file():
        home = run.inherits_from
    config = read_model_config(home / MODEL_FILE)
    folder = extra_code_directory
    if folder is None and config.extra_code_directory is not None:
        folder = home / config.extra_code_directory
        if not folder.resolve().is_relative_to(home.resolve()):
            raise InputError(f"{home / MODEL_FILE}: extra_code_directory: {folder} links out of the run's folder")
    if folder is not None and not folder.is_dir():
        raise InputError(f"{folder}: no such extra code directory")
    return config, None if folder is None else folder.resolve()


def _folds(parent: Run, allow_missing: bool, host: Host) -> tuple[Run, ...]:
    children = _source_of(parent, host).children(parent)
    return usable_folds(parent, children, host.checkpoint_formats(), allow_missing=allow_missing)


# --- packaging --------------------------------------------------------------------------------------------------------


def _target(run: Run, kind: PackageKind, output: str | Path | None) -> Path:
    return (run.folder if output is None else Path(output).resolve()) / kind


def _packaged(
    sources: Sequence[MemberSource],
    run: Run,
    kind: PackageKind,
    target: Path,
    options: PackageOptions | None,
    host: Host,
) -> Package:
    from innereye_core.packaging.making import make_package
    from innereye_core.packaging.plan import PackageOptions

    made = make_package(sources, run, kind, target, options or PackageOptions(), host)
    host.after_package(made)
    return made


# --- registering ------------------------------------------------------------------------------------------------------


def _run_around(package: Package, host: Host) -> Run | None:
    """The run in whose folder the package lies, if it is the run that the package was made from."""
    from innereye_core.builtin.runs import RUN_FILE

    folder = package.folder.resolve().parent
    if not (folder / RUN_FILE).is_file():
        return None
    run = open_run(folder, host)
    return run if run.id == package.manifest.run.id else None


def _source_of(run: Run, host: Host) -> RunSource:
    return next(source for source in host.run_sources() if source.name == run.source)
