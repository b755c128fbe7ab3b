"""Scores the subjects of a split of dataset.csv with a packaged model, and measures how well it agrees with masks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from innereye_core.errors import InputError, IntegrityError
from innereye_core.model import ScoreRequest
from innereye_core.progress import Silent
from innereye_imaging.dataset import DatasetSplit, SplitName, Subject, read_split
from innereye_imaging.loaded_networks import LoadedNetworks
from innereye_imaging.metrics import StructureMetrics, structure_metrics
from innereye_imaging.pipeline import prepare_study, read_mask, segment
from innereye_imaging.scorer import choose_runtime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from innereye_core.config import ModelConfig
    from innereye_core.contract.providers import Device, Network, Progress, Providers, Runtime
    from innereye_core.registered_models import LoadedModel

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SubjectMetrics:
    """How well one subject was segmented."""

    subject: str
    structures: Mapping[str, StructureMetrics]


@dataclass(frozen=True)
class Evaluation:
    """How well a model did on a split."""

    model: str
    """Its id, or its folder."""
    digest: str
    """Of the package."""
    runtime: str
    device: str
    structure_names: tuple[str, ...]
    subjects: tuple[SubjectMetrics, ...]
    """In the order of dataset.csv; at least one."""
    failures: Mapping[str, str]
    """Subject that could not be scored → why, in one line."""


@dataclass(frozen=True)
class EvaluationTask:
    """An evaluation of which everything that can be known in advance has been found to be there."""

    model: LoadedModel
    split: DatasetSplit
    runtime: Runtime
    device: Device

    @property
    def config(self) -> ModelConfig:
        """The model's config."""
        return self.model.files.config


def prepare_evaluation(
    model: LoadedModel,
    dataset: Path,
    split: SplitName,
    providers: Providers,
    *,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    runtime: str = "auto",
) -> EvaluationTask:
    """Read which subjects there are, and choose the runtime as ``innereye score`` does.

    Raises:
        InputError: dataset.csv is malformed, or its split is empty.
        MissingPluginError: no installed runtime can do it.
    """
    config = model.files.config
    subjects = read_split(dataset, split, config.image_channels, config.structure_names)
    request = ScoreRequest(model.files, model.title, images=(), output=Path(), device=device, runtime=runtime)
    chosen, chosen_device = choose_runtime(request, providers.runtimes())
    return EvaluationTask(model, subjects, chosen, chosen_device)


def evaluate(task: EvaluationTask, providers: Providers, progress: Progress | None = None) -> Evaluation:
    """Score every subject, loading the model once. A subject that cannot be scored does not stop the others.

    Raises:
        InputError: no subject could be scored, or checkpoint and network do not fit each other.
        IntegrityError: a weight is NaN or infinite, or a member of an ensemble was not loaded.
    """
    config = task.config
    networks = LoadedNetworks().of(task.model.files, task.runtime, task.device)
    _log.info("Evaluating %s with runtime %s on %s", task.model.title, task.runtime.name, task.device)
    measured: list[SubjectMetrics] = []
    failures = dict(task.split.unusable)
    for name, problem in failures.items():
        _log.warning("subject %s cannot be scored: %s", name, problem)
    with (progress or Silent()).track(f"Evaluating {task.model.title}", len(task.split.subjects)) as advance:
        for subject in task.split.subjects:
            try:
                measured.append(SubjectMetrics(subject.name, _measure(subject, networks, config, providers)))
            except (InputError, IntegrityError) as error:
                failures[subject.name] = str(error)
                _log.warning("subject %s cannot be scored: %s", subject.name, error)
            advance(1)
    if not measured:
        name, problem = next(iter(failures.items()))
        raise InputError(f"None of the {len(failures)} subjects can be scored; the first, {name}: {problem}")
    return Evaluation(
        model=task.model.title,
        digest=task.model.package.digest,
        runtime=task.runtime.name,
        device=task.device,
        structure_names=config.structure_names,
        subjects=tuple(measured),
        failures=failures,
    )


def _measure(
    subject: Subject, networks: Sequence[Network], config: ModelConfig, providers: Providers
) -> dict[str, StructureMetrics]:
    study = prepare_study(subject.images, config, providers, mask=subject.mask)
    labels = segment(study, networks, config).labels
    x, y, z = study.input_grid.spacing_xyz_mm
    metrics = {}
    for number, name in enumerate(config.structure_names, start=1):  # one mask in memory at a time
        mask = read_mask(subject.references[name], study, providers)
        metrics[name] = structure_metrics(labels == number, mask, (z, y, x))
    return metrics
