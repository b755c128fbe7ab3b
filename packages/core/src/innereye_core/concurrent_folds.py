"""Makes the ensemble of folds that were deployed elsewhere: fold 0 waits for the others, and registers it once."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core.contract.providers import ConcurrentFolds
from innereye_core.errors import InnerEyeError, InputError, RegistryError, UsageError
from innereye_core.folds import wait_for_folds
from innereye_core.model import FINAL_ENSEMBLE_MODEL, FoldRun, RegisteredModel, Run
from innereye_core.packaging.making import make_package
from innereye_core.packaging.packaged_members import packaged_member
from innereye_core.registered_models import load_model, parse_model_id
from innereye_core.registration import RegistrationOptions, default_registry, register
from innereye_core.runs import source_of

if TYPE_CHECKING:
    from innereye_core.contract.providers import Progress, Registry
    from innereye_core.host import Host
    from innereye_core.packaging.plan import MemberSource, PackageOptions

_log = logging.getLogger(__name__)

_BUILDS_THE_ENSEMBLE = "0"
"""Index of the fold that makes the ensemble, as in InnerEye."""


def parent_to_serve(run: Run, host: Host) -> Run | None:
    """The parent run whose ensemble this run has to make; None for every run but fold 0 of folds that run at once."""
    source = source_of(run, host)
    if run.fold != _BUILDS_THE_ENSEMBLE or not isinstance(source, ConcurrentFolds):
        return None
    return source.parent(run)


def make_ensemble(
    run: Run,
    model: RegisteredModel,
    target: Path,
    packaging: PackageOptions,
    registration: RegistrationOptions,
    *,
    allow_missing: bool,
    timeout_seconds: float,
    host: Host,
    progress: Progress,
) -> RegisteredModel:
    """Wait for the other folds, make ``final_ensemble_model`` from their packages, register it on the parent run.

    An ensemble that the parent has already is returned as it is: a restarted fold 0 registers no second one.

    Args:
        run: fold 0 of a parent run (:func:`parent_to_serve`).
        model: what fold 0 itself is registered as.
        target: where the package shall be.
        packaging: how it is made.
        registration: what it is registered as.
        allow_missing: whether to go on without folds that are missing.
        timeout_seconds: how long to wait for folds that have not ended.
        host: what the plugins offer.
        progress: where to say how far it is.

    Raises:
        The errors of :func:`innereye_core.folds.wait_for_folds`, :func:`innereye_core.packaging.making.make_package`
        and :func:`innereye_core.registration.register`; each says that fold 0 itself is registered.
    """
    source, parent = _source_and_parent(run, host)
    own = FoldRun(run.id, _BUILDS_THE_ENSEMBLE, run.status, model.id)
    registry = default_registry(host, registration.registry, parent)
    try:
        folds = wait_for_folds(
            source, parent, own, timeout_seconds=timeout_seconds, allow_missing=allow_missing, progress=progress
        )
        with source.exclusively(parent), contextlib.ExitStack() as copies:
            _, parent = _source_and_parent(run, host)  # as it is after the wait
            found = _registered_ensemble(registry, parent)
            if found is not None:
                _log.warning("run %s has the ensemble %s already; no second one is made", parent.id, found.id)
                source.add_tags(parent, {"model_id": found.id})
                return found
            members = [_member(fold, registration.registry, host, progress, copies) for fold in folds]
            made = make_package(members, parent, FINAL_ENSEMBLE_MODEL, target, packaging, host)
            return register(made, registration, run=parent, host=host, progress=progress)
    except InnerEyeError as error:
        kind = next(base for base in type(error).__mro__ if base.__module__ == InnerEyeError.__module__)
        raise kind(f"{model.id} is registered, but not the ensemble of run {parent.id}: {error}") from error


def _source_and_parent(run: Run, host: Host) -> tuple[ConcurrentFolds, Run]:
    source = source_of(run, host)
    parent = source.parent(run) if isinstance(source, ConcurrentFolds) else None
    if not isinstance(source, ConcurrentFolds) or parent is None:
        raise UsageError(f"run {run.id} is no fold of a cross-validation whose folds run at the same time")
    return source, parent


def _member(
    fold: FoldRun, registry: str | None, host: Host, progress: Progress, copies: contextlib.ExitStack
) -> MemberSource:
    """The fold's selected checkpoint, from the fold's own registered package."""
    loaded = load_model(str(fold.model_id), registry, host=host, progress=progress)
    if loaded.copy is not None:
        copies.enter_context(loaded.copy)
    member = packaged_member(loaded.package, fold.fold)
    if member.run.id != fold.id:
        raise InputError(f"{loaded.title}, the model of fold {fold.fold}, is of run {member.run.id}, not {fold.id}")
    return member


def _registered_ensemble(registry: Registry, parent: Run) -> RegisteredModel | None:
    """The ensemble that is registered for the parent run, also where a crash kept the run from being tagged."""
    tagged = parent.tags.get("model_id")
    if tagged is not None:
        with contextlib.suppress(RegistryError):  # it was deleted since
            return registry.get(*parse_model_id(tagged))
    ensembles = [
        model
        for model in registry.models()
        if model.properties.get("run_id") == parent.id and model.tags.get("is_ensemble") == "True"
    ]
    return ensembles[0] if ensembles else None
