"""The way from a training run to a registered model: select, package, and deploy, which also registers.

These functions are the Python API, and what the command line calls. Each takes a run as a reference (a folder) or as an
opened :class:`~innereye_core.model.Run`, and optionally a :class:`~innereye_core.host.Host`; the installed plugins
otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core.concurrent_folds import make_ensemble, parent_to_serve
from innereye_core.errors import InputError
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
from innereye_core.packaging.making import make_package
from innereye_core.packaging.plan import MemberSource, PackageOptions
from innereye_core.progress import Silent
from innereye_core.publishing import refuse_existing
from innereye_core.registration import RegistrationOptions, default_registry, refuse_impossible, register
from innereye_core.runs import open_run, source_of
from innereye_core.selecting import DEFAULT_POLICY, select_candidate

if TYPE_CHECKING:
    from innereye_core.config import ModelConfig
    from innereye_core.contract.providers import Progress

DEFAULT_ENSEMBLE_TIMEOUT_SECONDS = 24 * 3600.0


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
    """The folds' own deployments, where this is an ensemble that was made of folders."""
    ensemble: RegisteredModel | None = None
    """The ensemble on the parent run, where this run is the fold that had to make it."""


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
    return make_package(sources, opened, kind, target, packaging or PackageOptions(), host)


def deploy(
    run: str | Path | Run,
    selection: SelectionOptions | None = None,
    packaging: PackageOptions | None = None,
    registration: RegistrationOptions | None = None,
    *,
    output: str | Path | None = None,
    ensemble: bool = False,
    allow_missing_folds: bool = False,
    ensemble_timeout_seconds: float = DEFAULT_ENSEMBLE_TIMEOUT_SECONDS,
    host: Host | None = None,
    progress: Progress | None = None,
) -> Deployment:
    """Select, package and register a run, and tag it with ``model_id``.

    With ``ensemble``, each fold of the parent run deploys its own ``final_model`` first, and the ensemble of the folds'
    selected checkpoints becomes ``final_ensemble_model``, registered on the parent run. Nothing is registered before
    every package is complete.

    Where the folds are runs of their own at the same time (AzureML's Hyperdrive), each deploys itself, and fold 0 then
    waits for the others, for up to ``ensemble_timeout_seconds``, and registers the ensemble on the parent run.

    Raises:
        The errors of :func:`package` and :func:`register`.
    """
    host = host or installed_host()
    opened = open_run(run, host)
    packaging = packaging or PackageOptions()
    registration = registration or RegistrationOptions()
    refuse_impossible(registration)
    default_registry(host, registration.registry, opened)  # a registry that is not there is refused before the work
    replace = packaging.replace
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
    parent = None if ensemble else parent_to_serve(opened, host)
    if parent is not None and not replace:
        refuse_existing(_target(parent, FINAL_ENSEMBLE_MODEL, output))
    sources = [_selected(one, selection or SelectionOptions(), host, progress) for one in folds or (opened,)]
    packages = [
        make_package([source], fold, fold_kind, place, packaging, host)
        for source, (fold, fold_kind, place) in zip(sources, places, strict=False)
    ]
    whole = make_package(sources, opened, kind, target, packaging, host)
    children = tuple(
        Deployment(
            register(made, registration, run=fold, host=host, progress=progress), made, fold, (source.selection,)
        )
        for source, (fold, _, _), made in zip(sources, places, packages, strict=False)
    )
    model = register(whole, registration, run=opened, host=host, progress=progress)
    on_parent = None
    if parent is not None:
        on_parent = make_ensemble(
            opened,
            model,
            _target(parent, FINAL_ENSEMBLE_MODEL, output),
            packaging,
            registration,
            allow_missing=allow_missing_folds,
            timeout_seconds=ensemble_timeout_seconds,
            host=host,
            progress=progress or Silent(),
        )
    return Deployment(model, whole, opened, tuple(source.selection for source in sources), children, on_parent)


# --- selecting --------------------------------------------------------------------------------------------------------


def _selected(run: Run, options: SelectionOptions, host: Host, progress: Progress | None) -> MemberSource:
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
    children = source_of(parent, host).children(parent)
    return usable_folds(parent, children, host.checkpoint_formats(), allow_missing=allow_missing)


# --- packaging --------------------------------------------------------------------------------------------------------


def _target(run: Run, kind: PackageKind, output: str | Path | None) -> Path:
    return (run.folder if output is None else Path(output).resolve()) / kind
