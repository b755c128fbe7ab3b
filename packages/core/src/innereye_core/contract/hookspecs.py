"""The hooks: the only contract between rooms, in the order in which a deployment calls them.

Most hooks have one form: an implementation returns a list of *named providers* (objects, or classes that take no
arguments; see :mod:`innereye_core.contract.providers`). Core collects them from all plugins, refuses two of the same
name, and uses the one that the command line, the config or the default names. The other hooks add to what core does,
or observe it; all their implementations are called, in the order of plugin names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from innereye_core.contract.marker import hookspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from innereye_core.contract.providers import (
        CheckpointFormat,
        Commands,
        EnvironmentMerger,
        Evaluator,
        Executor,
        Exporter,
        ImageFormat,
        Packager,
        Providers,
        Registry,
        RunSource,
        Runtime,
        Scorer,
        SelectionPolicy,
    )
    from innereye_core.model import (
        EnvironmentFile,
        Package,
        PackagePlan,
        PlannedFile,
        RegisteredModel,
        Run,
        ToolboxSource,
    )

# --- before anything runs ---------------------------------------------------------------------------------------------


@hookspec
def innereye_commands(commands: Commands) -> None:
    """Add subcommands to ``innereye``.

    Called once when the command line starts, also for ``--help``: name the click command by its import path and import
    nothing heavy.
    """


# --- select -----------------------------------------------------------------------------------------------------------


@hookspec
def innereye_run_sources() -> Sequence[RunSource | type[RunSource]]:  # type: ignore[empty-body]
    """Offer ways to find the current run, and to open a run by reference.

    The first source (by plugin name, core's own last) that knows a reference opens it. Default: ``local``, a folder.
    """


@hookspec
def innereye_checkpoint_formats() -> Sequence[CheckpointFormat | type[CheckpointFormat]]:  # type: ignore[empty-body]
    """Offer formats of checkpoint files: recognise a file, tell its epoch, write its packaged form.

    Called when the candidates of a run are listed, and when one is packaged. Every file in ``checkpoints/`` goes to the
    one format that recognises it; two are an error. Default: none in core; innereye-segmentation brings
    ``innereye``, ``lightning``, ``state-dict`` and ``safetensors``.
    """


@hookspec
def innereye_evaluators() -> Sequence[Evaluator | type[Evaluator]]:  # type: ignore[empty-body]
    """Offer ways to score candidates on the validation set.

    Called where a policy needs scores and there is more than one candidate, in descending ``priority``, each for the
    epochs that are still without scores. Default: ``metrics-csv`` (core, ready-made scores), ``network``
    (innereye-segmentation, the network on the validation images).
    """


@hookspec
def innereye_policies() -> Sequence[SelectionPolicy | type[SelectionPolicy]]:  # type: ignore[empty-body]
    """Offer rules that choose among candidates: **checkpoint selection**.

    The one that ``--policy`` names is used. Default: ``best_validation_dice``; core also has ``last`` and ``epoch``.
    """


# --- package ----------------------------------------------------------------------------------------------------------


@hookspec
def innereye_environment_files(run: Run) -> Sequence[EnvironmentFile]:  # type: ignore[empty-body]
    """Name more Conda environment files that the model needs.

    Called once per package. Files are merged by ascending ``priority``: 100 toolbox, 200 run, 300 extra code,
    400 command line; the last name wins. All implementations are called.
    """


@hookspec
def innereye_environment_mergers() -> Sequence[EnvironmentMerger | type[EnvironmentMerger]]:  # type: ignore[empty-body]
    """Offer ways to make one Conda environment of several: **environment merging**.

    The one that ``--merge-strategy`` names is used. Default: ``conda-merge``.
    """


@hookspec
def innereye_toolbox_sources() -> Sequence[ToolboxSource]:  # type: ignore[empty-body]
    """Name import packages that travel inside every model package, under ``InnerEye/<section>/``.

    Called once per package. A third-party plugin that scoring needs returns itself with the section ``Plugins``.
    All implementations are called.
    """


@hookspec
def innereye_packagers() -> Sequence[Packager | type[Packager]]:  # type: ignore[empty-body]
    """Offer ways to lay out a package folder from a plan: **packaging**.

    The one that ``--packager`` names is used. Default: ``innereye``.
    """


@hookspec
def innereye_package_files(plan: PackagePlan, providers: Providers) -> Sequence[PlannedFile]:  # type: ignore[empty-body]
    """Give extra files for the package.

    Called after the packager, before the manifest is written, which lists them like all others. A path that exists
    already is an error. All implementations are called.
    """


@hookspec
def innereye_after_package(package: Package) -> None:
    """Observe a package that has just become visible.

    An implementation that fails is a warning and exit code 1; the package stands. All implementations are called.
    """


# --- register ---------------------------------------------------------------------------------------------------------


@hookspec
def innereye_registries() -> Sequence[Registry | type[Registry]]:  # type: ignore[empty-body]
    """Offer places where packages live under ``name:version``: **registration**.

    The one that ``--registry`` names is used, else ``INNEREYE_REGISTRY``, else the registry of the current run's
    source. Default: ``local``.
    """


@hookspec
def innereye_after_registration(model: RegisteredModel, package: Package) -> None:
    """Observe a version that has just been registered.

    An implementation that fails is a warning and exit code 1; the registration stands. All implementations are called.
    """


# --- score ------------------------------------------------------------------------------------------------------------


@hookspec
def innereye_scorers() -> Sequence[Scorer | type[Scorer]]:  # type: ignore[empty-body]
    """Offer the pipeline behind ``innereye score``.

    Core has none; innereye-imaging brings ``images``, the default. A scorer of another name replaces it, with a
    warning; two are an error.
    """


@hookspec
def innereye_image_formats() -> Sequence[ImageFormat | type[ImageFormat]]:  # type: ignore[empty-body]
    """Offer image file formats, chosen by file name ending.

    Core has none; innereye-imaging brings ``nifti``, ``nrrd`` and ``metaimage``.
    """


@hookspec
def innereye_runtimes() -> Sequence[Runtime | type[Runtime]]:  # type: ignore[empty-body]
    """Offer runtimes that evaluate a network on patches.

    The one that ``--runtime`` names is used; ``auto`` takes CUDA where there is a GPU, else the highest ``rank``.
    Core has none; innereye-segmentation brings ``torch``.
    """


@hookspec
def innereye_executors() -> Sequence[Executor | type[Executor]]:  # type: ignore[empty-body]
    """Offer ways to have many studies scored.

    Called by ``score --studies``; the one that accepts the value of ``--jobs`` is used. Default: ``local``, a number of
    processes on this machine.
    """


# --- other forms ------------------------------------------------------------------------------------------------------


@hookspec
def innereye_exporters() -> Sequence[Exporter | type[Exporter]]:  # type: ignore[empty-body]
    """Offer ways to add another form of the model to a copy of its package. Core has none."""
