"""The frozen dataclasses that cross from room to room: runs, candidates, packages, registered models, results.

They hold data only. Dice values are floats in [0, 1]; NaN means "not defined" (the structure is empty in both masks).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from innereye_core.config import ModelConfig

SizeZYX: TypeAlias = tuple[int, int, int]
"""Three numbers of voxels along z, y, x."""

PackageKind: TypeAlias = Literal["final_model", "final_ensemble_model"]
FINAL_MODEL: Final = "final_model"
FINAL_ENSEMBLE_MODEL: Final = "final_ensemble_model"


# --- the training run -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A training run whose files are on this machine."""

    id: str
    name: str
    folder: Path
    """Folder with model.yaml, checkpoints/, dataset.csv, …"""
    source: str
    """Name of the run source that opened it."""
    status: str = "unknown"
    tags: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    """Id of the parent run, where this is a cross-validation fold."""
    fold: str | None = None
    """Name of the cross-validation fold ("0", "1", …), where this is one."""
    inherits_from: Path | None = None
    """The parent's folder: model.yaml and environment.yml are taken from there where a fold has none of its own."""


@dataclass(frozen=True)
class FoldRun:
    """A cross-validation fold that runs, or ran, on another machine."""

    id: str
    fold: str
    """Its index: "0", "1", …"""
    status: str
    """As the run source words it: Running, Completed, Failed, Canceled, …"""
    model_id: str | None = None
    """The model that it deployed; None before."""


@dataclass(frozen=True)
class Candidate:
    """What a run offers for deployment: one epoch and its checkpoint file."""

    epoch: int
    checkpoint: Path
    format: str
    """Name of the checkpoint format that recognised the file."""


@dataclass(frozen=True)
class SubjectScore:
    """Dice of one subject of the validation set."""

    subject: str
    dice: Mapping[str, float]
    """Structure name → Dice in [0, 1], NaN where not defined. Every structure of the model is there."""

    @property
    def mean_dice(self) -> float:
        """Mean over structures, ignoring NaN; NaN if nothing is left (InnerEye's per-image average)."""
        return _mean_ignoring_nan(self.dice.values())


@dataclass(frozen=True)
class ScoredCandidate:
    """A candidate with its scores on the validation set; ``subjects`` is empty where nothing was evaluated."""

    candidate: Candidate
    subjects: tuple[SubjectScore, ...] = ()

    @property
    def epoch(self) -> int:
        """The candidate's epoch."""
        return self.candidate.epoch

    @property
    def score(self) -> float:
        """Mean of the subjects' mean Dice; a subject without any defined Dice does not count; NaN if none counts."""
        return _mean_ignoring_nan([subject.mean_dice for subject in self.subjects])

    @property
    def structures(self) -> dict[str, float]:
        """Structure name → mean Dice over subjects, ignoring NaN."""
        names = dict.fromkeys(name for subject in self.subjects for name in subject.dice)
        return {name: _mean_ignoring_nan([subject.dice[name] for subject in self.subjects]) for name in names}


@dataclass(frozen=True)
class Selection:
    """The outcome of a selection policy on one run, with the table that it was made from."""

    policy: str
    selected: Candidate
    candidates: tuple[ScoredCandidate, ...]
    evaluated: bool
    """False where the selection needed no scores: one candidate only, or a policy that looks at epochs alone."""

    @property
    def score(self) -> float:
        """Validation Dice of the selected candidate; NaN where it was not evaluated."""
        return next(scored.score for scored in self.candidates if scored.epoch == self.selected.epoch)


def _mean_ignoring_nan(values: Iterable[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


# --- the environment --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EnvironmentFile:
    """A Conda environment file that takes part in a merge."""

    path: Path
    priority: int
    """Files are merged in ascending order: 100 toolbox, 200 run, 300 extra code, 400 command line."""
    label: str | None = None
    """How messages name the file; its path where None."""


@dataclass(frozen=True)
class MergedEnvironment:
    """One Conda environment made of several."""

    text: str
    """The content of environment.yml."""
    warnings: tuple[str, ...] = ()
    """What was dropped, overridden or doubtful, one line each."""


# --- the package ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToolboxSource:
    """An import package that travels inside a model package, under ``InnerEye/<section>/<import_name>/``."""

    section: str
    """Azure, Common, ML, or Plugins for third-party plugins."""
    import_name: str
    folder: Path
    distribution: str
    version: str
    plugin_name: str | None = None
    """Name of the plugin that it registers, where it is one."""
    plugin_module: str | None = None
    """Dotted path of the module with the plugin's hook implementations."""
    needed_to_score: bool = True
    """False: it travels as a record, and what it requires is no part of the packaged environment."""


@dataclass(frozen=True)
class NetworkGeometry:
    """What a network asks of the patches that it gets, in voxels along z, y, x."""

    size_multiple_zyx: SizeZYX
    minimum_size_zyx: SizeZYX
    output_size_zyx: SizeZYX
    """Size of the output for a patch of the configured crop size."""


@dataclass(frozen=True)
class PackagedCheckpoint:
    """What became of a checkpoint on its way into a package."""

    source_name: str
    source_sha256: str
    source_size: int
    stored_epoch: int | None
    """The epoch that the file itself states, where it states one."""
    removed: tuple[str, ...]
    """Top-level entries left out, such as optimizer states."""
    notes: tuple[str, ...] = ()
    """What a reader of the manifest should know, for example which of two sets of weights was taken."""


@dataclass(frozen=True)
class Member:
    """One checkpoint of a package: the only one, or one fold of an ensemble."""

    run: Run
    selection: Selection
    path: str
    """Where the checkpoint is in the package (relative, POSIX)."""
    checkpoint: PackagedCheckpoint


@dataclass(frozen=True)
class PlannedFile:
    """A file that belongs into the package: a copy of ``source``, or ``content``."""

    path: str
    """Target in the package (relative, POSIX)."""
    role: str
    """checkpoint, toolbox, code, config, environment, entry, validation, card, or a plugin's own word."""
    source: Path | None = None
    content: bytes | None = None


@dataclass(frozen=True)
class PackagePlan:
    """Everything that a packager needs: what the package is about, and every file that goes into it."""

    kind: PackageKind
    run: Run
    config: ModelConfig
    """The config as the package will carry it: stitching and network geometry settled."""
    members: tuple[Member, ...]
    environment: MergedEnvironment
    toolbox: tuple[ToolboxSource, ...]
    extra_code: Path | None
    files: tuple[PlannedFile, ...]
    """Every file but manifest.json, which core writes when the folder is complete."""


@dataclass(frozen=True)
class FileRecord:
    """A file as the manifest lists it."""

    path: str
    sha256: str
    size: int
    role: str


@dataclass(frozen=True)
class PluginRecord:
    """A plugin that score.py registers by its module path."""

    name: str
    module: str
    distribution: str
    version: str


@dataclass(frozen=True)
class RunRecord:
    """Where a package came from."""

    id: str
    name: str
    source: str


@dataclass(frozen=True)
class MemberRecord:
    """A checkpoint of the package, where it came from, and how it was chosen."""

    path: str
    run: str
    """Id of the run."""
    fold: str | None
    epoch: int
    candidates: int
    """Number of epochs that it was chosen from."""
    policy: str
    score: float | None
    """Mean Dice on the validation set; None where it was not evaluated."""
    checkpoint: PackagedCheckpoint


@dataclass(frozen=True)
class Manifest:
    """manifest.json: every other file of the package with digest, size and role; plugins to load; provenance."""

    kind: PackageKind
    model_name: str
    created: str
    """UTC, ISO 8601."""
    files: tuple[FileRecord, ...]
    plugins: tuple[PluginRecord, ...]
    versions: Mapping[str, str]
    """Python and every distribution of the toolbox and its requirements, as installed when packaged."""
    run: RunRecord
    members: tuple[MemberRecord, ...]
    extra_code: str | None = None
    """Top-level import name of the extra code, where there is some."""
    environment_warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Package:
    """A complete package folder with its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """``sha256:`` and the digest of manifest.json, which itself holds the digest of every other file."""
        from innereye_core.digests import sha256_of_file

        return f"sha256:{sha256_of_file(self.folder / 'manifest.json')}"


@dataclass(frozen=True)
class ModelFiles:
    """What a runtime loads: a config with the checkpoints and the code that belong to it."""

    config: ModelConfig
    checkpoints: tuple[Path, ...]
    """One file, or one per fold of an ensemble."""
    extra_code: Path | None = None
    """Folder whose name is the top-level import name of the network's own code."""
    folder: Path | None = None
    """The package folder, where other runtimes find their files; None for a training run."""


# --- the registry -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Registration:
    """What a package is registered as."""

    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    run: Run | None = None
    """The run that the model is of, for registries that link models to runs."""

    def as_model(self, version: int, registry: str, folder_name: PackageKind, created: str) -> RegisteredModel:
        """The model that it has become as this version; ``created`` is a time in UTC, ISO 8601."""
        return RegisteredModel(
            name=self.name,
            version=version,
            registry=registry,
            folder_name=folder_name,
            description=self.description,
            tags=self.tags,
            properties=self.properties,
            created=created,
        )


@dataclass(frozen=True)
class RegisteredModel:
    """A version of a model in a registry."""

    name: str
    version: int
    registry: str
    folder_name: PackageKind
    description: str
    tags: Mapping[str, str]
    properties: Mapping[str, str]
    created: str
    """UTC, ISO 8601."""

    @property
    def id(self) -> str:
        """``Name:Version``, for example ``Prostate:892``."""
        return f"{self.name}:{self.version}"


# --- scoring ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreRequest:
    """One study to segment."""

    model: ModelFiles
    model_name: str
    """What the result says it was made with: a model id, or a folder."""
    images: tuple[Path, ...]
    """One file per image channel, in the order of the config."""
    output: Path
    overwrite: bool = False
    """Whether existing outputs are replaced."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    runtime: str = "auto"
    precision: str = "fp32"
    """``fp16`` or ``bf16`` for runtimes that can, whose labels may then differ from float32."""
    posteriors: Path | None = None
    """Where to write the 4-D posteriors (x, y, z, class), background first; None: not at all."""
    posteriors_folder: Path | None = None
    """Where to write the posteriors of each structure to a file of its own; None: not at all."""
    mask: Path | None = None
    """Image outside of which everything is background; None: there is none."""
    uncertainty: Path | None = None
    """Where to write how unsure the model is; None: not at all."""
    statistics: tuple[Path, ...] = ()
    """Where to write the statistics of each structure: *.json, *.csv."""
    preview: Path | None = None
    """Where to write a picture, *.png; None: not at all."""
    report: Path | None = None
    """Where to write a report for people, *.html; None: not at all."""
    replace_segmentation: bool = False
    """Whether an existing segmentation is replaced even if no other output is: InnerEye's default."""


@dataclass(frozen=True)
class StructureVolume:
    """How much of a structure was found."""

    label: int
    voxels: int
    volume_ml: float


@dataclass(frozen=True)
class Check:
    """One thing that was checked about the input."""

    name: str
    outcome: Literal["passed", "repaired", "unchecked", "warning"]
    detail: str


@dataclass(frozen=True)
class ScoreResult:
    """What scoring one study produced."""

    segmentation: Path
    model: str
    structures: Mapping[str, StructureVolume]
    checks: tuple[Check, ...]
    seconds: float
    runtime: str
    posteriors: Path | None = None
    """The file, or the folder."""
    uncertainty: Path | None = None
    disagreement: Path | None = None
    """How far the members of an ensemble disagree: a file beside ``uncertainty``."""
    statistics: tuple[Path, ...] = ()
    preview: Path | None = None
    report: Path | None = None
    review: tuple[str, ...] = ()
    """What somebody should look at, because validation saw nothing like it: one line each."""
