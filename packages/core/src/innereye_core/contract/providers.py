"""What each kind of provider must offer, as Protocols: an object or class with a ``name`` and a few typed methods.

A provider needs not inherit from these. Core checks the names of attributes and methods when it collects providers.
Errors that a provider raises on purpose derive from :class:`innereye_core.errors.InnerEyeError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from innereye_core.config import ModelConfig
    from innereye_core.model import (
        Candidate,
        Check,
        EnvironmentFile,
        FoldRun,
        MergedEnvironment,
        ModelFiles,
        NetworkGeometry,
        Package,
        PackagedCheckpoint,
        PackagePlan,
        RegisteredModel,
        Registration,
        Run,
        ScoredCandidate,
        ScoreRequest,
        ScoreResult,
        SubjectScore,
    )
    from innereye_core.scoring_studies import StudyOutcome, StudyTask
    from innereye_core.studies import StudyFiles

Array: TypeAlias = Any
"""An array of any library that follows the array API standard: numpy, torch, cupy."""

Device: TypeAlias = Literal["cpu", "cuda"]


class Progress(Protocol):
    """Where long work says how far it is. Nothing is shown unless a person watches."""

    def track(self, description: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Open one task of ``total`` steps; call what it gives with the number of steps just done."""
        ...


class Providers(Protocol):
    """What the installed plugins offer to one another, through core."""

    def checkpoint_formats(self) -> Sequence[CheckpointFormat]:
        """Every checkpoint format."""
        ...

    def image_formats(self) -> Sequence[ImageFormat]:
        """Every image format."""
        ...

    def runtimes(self) -> Sequence[Runtime]:
        """Every runtime."""
        ...


@runtime_checkable
class RunSource(Protocol):
    """Finds and opens training runs."""

    name: str
    registry: str
    """Name of the registry that runs of this source register in by default."""

    def current(self) -> Run | None:
        """The run that this process is part of, or None."""
        ...

    def open(self, reference: str) -> Run | None:
        """The run that ``reference`` names, or None where it is no reference of this kind.

        Raises:
            InputError: it is a reference of this kind, but the run cannot be used.
        """
        ...

    def children(self, run: Run) -> Sequence[Run]:
        """The cross-validation folds below ``run``, in order; empty where there are none."""
        ...

    def add_tags(self, run: Run, tags: Mapping[str, str]) -> Run:
        """Add or replace tags of the run, and return it as it is afterwards."""
        ...


@runtime_checkable
class ConcurrentFolds(RunSource, Protocol):
    """A run source whose cross-validation folds are runs of their own, at the same time on different machines.

    Each fold deploys itself there; the one with the index 0 then waits for the others and makes the ensemble.
    """

    def parent(self, run: Run) -> Run | None:
        """The run that ``run`` is a fold of, with the fold's own folder as its folder; None where it is no fold."""
        ...

    def folds(self, parent: Run) -> Sequence[FoldRun]:
        """Every fold of a parent run as it is now, asked anew each time. An index that was restarted is there twice."""
        ...

    def exclusively(self, parent: Run) -> AbstractContextManager[None]:
        """Hold the right to register the parent's ensemble, waiting while another process has it and lives.

        Raises:
            RegistryError: it cannot be had, or was lost.
        """
        ...


@runtime_checkable
class CheckpointFormat(Protocol):
    """Reads one kind of checkpoint file, without ever running code that is inside."""

    name: str
    stitching_must_be_named: bool
    """True where the same weights were scored in different ways by different toolboxes (Lightning's)."""

    def recognises(self, path: Path) -> bool:
        """Whether the file is of this kind. May look at its name and first bytes; must be quick."""
        ...

    def epoch(self, path: Path) -> int:
        """The epoch of the file: from its name where the format has it there, else as stored.

        Raises:
            InputError: the file is corrupt, or states no epoch.
        """
        ...

    def write_packaged(self, source: Path, target: Path) -> PackagedCheckpoint:
        """Write the weights alone, in the same container and with the same keys.

        Raises:
            InputError: the file is corrupt or holds a class that is not plain data (named in the message).
            IntegrityError: a weight is NaN or infinite.
        """
        ...


@runtime_checkable
class Evaluator(Protocol):
    """Scores candidates on the validation set of their run."""

    name: str
    priority: int
    """Evaluators are asked from the highest to the lowest, each for what the ones before left open."""

    def evaluate(
        self,
        run: Run,
        config: ModelConfig,
        candidates: Sequence[Candidate],
        extra_code: Path | None,
        providers: Providers,
        progress: Progress,
    ) -> Mapping[int, Sequence[SubjectScore]]:
        """Scores by epoch; epochs that this evaluator cannot score are left out.

        Raises:
            InputError: it could score them, but a file that it needs cannot be used.
        """
        ...


@runtime_checkable
class SelectionPolicy(Protocol):
    """Chooses among candidates."""

    name: str
    needs_scores: bool
    """Whether candidates must be evaluated on the validation set first."""

    def choose(self, candidates: Sequence[ScoredCandidate]) -> int:
        """The epoch to deploy. Candidates come in ascending order of epoch, at least one.

        Raises:
            InputError: none of them can be chosen.
        """
        ...


@runtime_checkable
class EnvironmentMerger(Protocol):
    """Makes one Conda environment of several."""

    name: str

    def merge(
        self, files: Sequence[EnvironmentFile], name: str | None = None, extra_code: Path | None = None
    ) -> MergedEnvironment:
        """Merge ``files`` in their order.

        Args:
            files: at least one file.
            name: name of the merged environment; None: the last name in the files.
            extra_code: folder that relative ``pip install -e`` lines may point into.

        Raises:
            InputError: a file is malformed, or two contradict each other; files and lines are named.
        """
        ...


@runtime_checkable
class Packager(Protocol):
    """Lays out a package folder."""

    name: str

    def build(self, plan: PackagePlan, folder: Path) -> None:
        """Write every file of ``plan.files`` below ``folder``, an empty folder that nobody sees yet.

        Core adds what ``innereye_package_files`` gives and manifest.json afterwards, and then publishes the folder by
        one rename; an exception leaves nothing behind.
        """
        ...


@runtime_checkable
class Registry(Protocol):
    """Keeps packages under ``name:version``."""

    name: str

    def register(self, package: Package, registration: Registration, progress: Progress) -> RegisteredModel:
        """Publish the files that the package's manifest lists, and the manifest, as the next version of the name.

        No version is visible before all of its files are there.

        Raises:
            RegistryError: the registry cannot be reached or refuses.
            StorageError: the disk is full or not writable; no version is visible then.
        """
        ...

    def models(self) -> Sequence[RegisteredModel]:
        """Every version that is not deleted, by name and ascending version."""
        ...

    def get(self, name: str, version: int | None) -> RegisteredModel:
        """One version; the highest that is not deleted for None.

        Raises:
            RegistryError: there is none.
        """
        ...

    def folder(self, model: RegisteredModel) -> Path | None:
        """The package's folder where it already lies on this machine (not to be changed), else None."""
        ...

    def fetch(self, model: RegisteredModel, folder: Path, progress: Progress) -> None:
        """Write the package's files into ``folder``, which exists and is empty. Core verifies them afterwards."""
        ...

    def tag(self, model: RegisteredModel, tags: Mapping[str, str]) -> RegisteredModel:
        """Add or replace tags, and return the model as it is afterwards."""
        ...

    def delete(self, model: RegisteredModel) -> None:
        """Remove a version. Its number is never used again."""
        ...


@runtime_checkable
class PlacedRegistry(Registry, Protocol):
    """A registry that is in one of many places, such as an AzureML workspace."""

    def at(self, place: str) -> Registry:
        """The registry in this place: what follows the colon in ``--registry NAME:PLACE``.

        Raises:
            UsageError: the place is no place of this kind.
        """
        ...


@runtime_checkable
class Scorer(Protocol):
    """The way from a patient's image files to a segmentation file."""

    name: str

    def score(self, request: ScoreRequest, providers: Providers, progress: Progress) -> ScoreResult:
        """Segment one study.

        Raises:
            InputError: an image cannot be used, or the output exists and may not be overwritten.
        """
        ...


class Network(Protocol):
    """A loaded network, ready to be evaluated.

    One that has ``checks``, a sequence of :class:`~innereye_core.model.Check`, has them shown with every result: what
    really computes, and how far it is from float32.
    """

    geometry: NetworkGeometry

    def evaluate(self, patches: Array, keep: tuple[slice, slice, slice] | None = None) -> Array:
        """Class scores of a batch of patches, before the activation.

        Args:
            patches: numpy float32, (batch, channel, z, y, x).
            keep: the region (z, y, x) of the output that is wanted; None: all of it.

        Returns:
            Floats (batch, class, z', y', x') of exactly the region ``keep``, in the runtime's own array type.
        """
        ...


@runtime_checkable
class Runtime(Protocol):
    """Evaluates networks on patches."""

    name: str

    def rank(self, model: ModelFiles, device: Device) -> int | None:
        """How fast this runtime is expected to be for this model; higher is faster. None: it cannot run it there."""
        ...

    def load(self, model: ModelFiles, device: Device) -> Sequence[Network]:
        """Load one network per checkpoint.

        Raises:
            InputError: checkpoint and network do not fit each other, or the factory cannot be imported.
            IntegrityError: a weight is NaN or infinite.
            MissingPluginError: the device or a package is not there.
        """
        ...


@runtime_checkable
class PrecisionRuntime(Runtime, Protocol):
    """A runtime that can compute in less than float32, where it is asked to."""

    precisions: tuple[str, ...]
    """``fp32`` first; ``fp16``, ``bf16``."""

    def rank(self, model: ModelFiles, device: Device, precision: str = "fp32") -> int | None:
        """As :meth:`Runtime.rank`, for a precision."""
        ...

    def load(self, model: ModelFiles, device: Device, precision: str = "fp32") -> Sequence[Network]:
        """As :meth:`Runtime.load`, in a precision."""
        ...


class ImageData(Protocol):
    """Voxels with their place in space, as image formats read and write them."""

    @property
    def voxels(self) -> Array:
        """(z, y, x); (class, z, y, x) for posteriors."""
        ...

    @property
    def affine(self) -> Array:
        """4×4, from voxel indices (x, y, z) to RAS+ world coordinates in mm (NIfTI's convention)."""
        ...


@runtime_checkable
class ImageFormat(Protocol):
    """Reads and writes one image file format."""

    name: str
    suffixes: tuple[str, ...]
    """File name endings in lower case, such as ``.nii.gz``."""

    def read(self, path: Path) -> ImageData:
        """Read a 3-D image.

        Raises:
            InputError: the file is missing, truncated, not of this format, or not 3-D.
        """
        ...

    def write(self, path: Path, image: ImageData) -> None:
        """Write a 3-D image, or 4-D posteriors where the format can hold them.

        Raises:
            UsageError: the format cannot hold the image.
        """
        ...


@runtime_checkable
class Exporter(Protocol):
    """Adds another form of the model to a package, and measures how closely it agrees with the original."""

    name: str
    precisions: tuple[str, ...]
    """What ``--precision`` may be; ``fp32`` is one of them."""

    def export(
        self, model: ModelFiles, folder: Path, precision: str, providers: Providers, progress: Progress
    ) -> Sequence[Check]:
        """Add files to ``folder``, a private copy of the package; core writes the new manifest afterwards.

        Args:
            model: what is exported; not to be changed.
            folder: the copy. Files that are there already must stay as they are.
            precision: one of ``precisions``.
            providers: the runtimes to check the new files with.
            progress: where to say how far it is.

        Returns:
            What was checked and measured.

        Raises:
            InputError: the network cannot be exported.
            IntegrityError: what was exported does not compute what the model computes.
            MissingPluginError: a package is not there.
        """
        ...


@runtime_checkable
class Executor(Protocol):
    """Has many studies scored: in processes, or on other machines."""

    name: str

    def accepts(self, jobs: str) -> bool:
        """Whether the value of ``--jobs`` is meant for this executor."""
        ...

    def run(self, task: StudyTask, studies: Sequence[StudyFiles], jobs: str) -> Iterator[StudyOutcome]:
        """Call ``task`` with every study, in any order, and give each outcome once.

        The task can be pickled; a process that calls it loads the model once. Closing the iterator ends the work.

        Raises:
            InnerEyeError: what the task raises concerns all studies; or the executor itself failed.
        """
        ...


class Commands(Protocol):
    """Where plugins add subcommands of ``innereye``."""

    def add(self, name: str, import_path: str, help: str) -> None:
        """Add a subcommand that is imported only when it is used.

        Args:
            name: the subcommand, for example ``demo``.
            import_path: ``package.module:attribute`` of a click command.
            help: one line for ``innereye --help``.
        """
        ...
