"""Plans a package: which checkpoints, settings, environment and code it holds, file by file."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from innereye_core.candidates import CHECKPOINT_FOLDER
from innereye_core.config_files import INFERENCE_CONFIG_FILE, inference_config_bytes
from innereye_core.config_rules import geometry_contradictions
from innereye_core.errors import InputError, MissingPluginError
from innereye_core.model import (
    FINAL_MODEL,
    Member,
    MergedEnvironment,
    ModelFiles,
    NetworkGeometry,
    PackagedCheckpoint,
    PackageKind,
    PackagePlan,
    PlannedFile,
    Run,
    Selection,
    ToolboxSource,
)
from innereye_core.packaging.environment_files import (
    ENVIRONMENT_FILE,
    gather_environment_files,
)
from innereye_core.packaging.model_card import model_card
from innereye_core.packaging.network_origin import carried_source
from innereye_core.packaging.source_trees import source_digest, source_files
from innereye_core.packaging.validation_table import VALIDATION_FILE, validation_bytes

if TYPE_CHECKING:
    from innereye_core.config import ModelConfig
    from innereye_core.contract.providers import EnvironmentMerger
    from innereye_core.host import Host

_log = logging.getLogger(__name__)

ENTRY_SCRIPT = Path(__file__).parents[1] / "package_data" / "score.py"
"""The score.py of every package."""

_RESERVED = {CHECKPOINT_FOLDER, "InnerEye"}

DEFAULT_PACKAGER = "innereye"
DEFAULT_MERGER = "conda-merge"


@dataclass(frozen=True)
class MemberSource:
    """A run with the candidate that was selected from it."""

    run: Run
    config: ModelConfig
    extra_code: Path | None
    selection: Selection
    packaged: PackagedCheckpoint | None = None
    """What became of the checkpoint, where the selected file is a packaged one already."""


@dataclass(frozen=True)
class PackageOptions:
    """How a package is made; the defaults are the command line's."""

    environments: tuple[Path, ...] = ()
    """More Conda environment files, merged last, in this order."""
    merge_strategy: str = DEFAULT_MERGER
    packager: str = DEFAULT_PACKAGER
    replace: bool = False
    """Whether an existing package is replaced."""


def plan_package(
    sources: Sequence[MemberSource],
    run: Run,
    kind: PackageKind,
    options: PackageOptions,
    merger: EnvironmentMerger,
    host: Host,
    work: Path,
) -> PackagePlan:
    """Plan a package; the network is built and every member loaded into it, so that what does not fit is found here.

    Args:
        sources: one selected candidate, or one per fold in the order of folds.
        run: the run that the package belongs to.
        kind: which of the two package folders this is.
        options: how it is made.
        merger: merges its environment.
        host: what the plugins offer.
        work: an empty folder for files that the plan refers to; it must stay until the package is laid out.

    Raises:
        InputError: something that goes into the package cannot be used.
        IntegrityError: a weight is NaN or infinite.
        MissingPluginError: no plugin can build the network.
    """
    config, extra_code = _common(sources)
    members = tuple(_write_checkpoint(source, kind, work, host) for source in sources)
    model = ModelFiles(config, tuple(work / member.path for member in members), extra_code)
    config = _settled(config, _network_geometry(model, host), extra_code)
    toolbox = tuple(host.toolbox_sources())

    def merged() -> MergedEnvironment:
        files = gather_environment_files(
            run, toolbox, extra_code, host.environment_files(run), options.environments, work
        )
        return merger.merge(files, extra_code=extra_code)

    environment = merged()
    carried = carried_source(config.network.factory, extra_code, toolbox, environment)
    if carried is not None:
        toolbox = (*toolbox, carried)
        environment = merged()
    for warning in environment.warnings:
        _log.warning("%s", warning)
    return PackagePlan(
        kind=kind,
        run=run,
        config=config,
        members=members,
        environment=environment,
        toolbox=toolbox,
        extra_code=extra_code,
        files=tuple(_planned_files(config, members, run, environment, toolbox, extra_code, work)),
    )


def _common(sources: Sequence[MemberSource]) -> tuple[ModelConfig, Path | None]:
    """The config and the extra code that all members share."""
    first = sources[0]
    for other in sources[1:]:
        for field in dataclasses.fields(first.config):
            mine, theirs = getattr(first.config, field.name), getattr(other.config, field.name)
            if field.name != "epochs_to_test" and mine != theirs:
                raise InputError(
                    f"{other.run.folder}: {field.name} in its model config differs from {first.run.folder}; "
                    "the members of an ensemble must have the same"
                )
    codes = {None if source.extra_code is None else source_digest(source.extra_code) for source in sources}
    if len(codes) > 1:
        raise InputError(
            f"{first.run.folder}: the folds have different extra code; give one with --extra-code-directory"
        )
    return first.config, first.extra_code


def _write_checkpoint(source: MemberSource, kind: PackageKind, work: Path, host: Host) -> Member:
    candidate = source.selection.selected
    fold = () if kind == FINAL_MODEL else (source.run.fold or source.run.name,)
    path = PurePosixPath(CHECKPOINT_FOLDER, *fold, candidate.checkpoint.name)
    target = work / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.packaged is not None:
        shutil.copyfile(candidate.checkpoint, target)
        return Member(source.run, source.selection, path.as_posix(), source.packaged)
    format = next(format for format in host.checkpoint_formats() if format.name == candidate.format)
    written = format.write_packaged(candidate.checkpoint, target)
    return Member(source.run, source.selection, path.as_posix(), written)


def _network_geometry(model: ModelFiles, host: Host) -> NetworkGeometry:
    """What the network asks for, by loading every member: keys, shapes and weights are checked on the way."""
    ranked = [(runtime.rank(model, "cpu"), runtime) for runtime in host.runtimes()]
    able = [(rank, runtime) for rank, runtime in ranked if rank is not None]
    if not able:
        raise MissingPluginError(
            "no installed plugin can build the network: pip install innereye-imaging innereye-segmentation"
        )
    runtime = max(able, key=lambda item: item[0])[1]
    return runtime.load(model, "cpu")[0].geometry


def _settled(config: ModelConfig, geometry: NetworkGeometry, extra_code: Path | None) -> ModelConfig:
    """The config with everything said that a reader would otherwise have to find out."""
    if extra_code is not None and (extra_code.name in _RESERVED or not extra_code.name.isidentifier()):
        raise InputError(
            f"{extra_code}: cannot travel in a package under the name {extra_code.name!r}; rename the folder to an "
            "import name of its own"
        )
    settled = dataclasses.replace(
        config,
        network=dataclasses.replace(
            config.network,
            size_multiple_zyx=geometry.size_multiple_zyx,
            minimum_size_zyx=geometry.minimum_size_zyx,
            output_size_zyx=geometry.output_size_zyx,
        ),
        inference=dataclasses.replace(config.inference, stitching=config.inference.effective_stitching),
        extra_code_directory=None if extra_code is None else extra_code.name,
    )
    for contradiction in geometry_contradictions(settled):
        raise InputError(f"the model config does not fit its network: {contradiction}")
    return settled


def _planned_files(
    config: ModelConfig,
    members: Sequence[Member],
    run: Run,
    environment: MergedEnvironment,
    toolbox: Sequence[ToolboxSource],
    extra_code: Path | None,
    work: Path,
) -> Iterator[PlannedFile]:
    yield PlannedFile("score.py", "entry", source=ENTRY_SCRIPT)
    yield PlannedFile(ENVIRONMENT_FILE, "environment", content=environment.text.encode())
    settings = inference_config_bytes(config, [member.path for member in members])
    yield PlannedFile(INFERENCE_CONFIG_FILE, "config", content=settings)
    yield PlannedFile(VALIDATION_FILE, "validation", content=validation_bytes(members))
    yield PlannedFile("README.md", "card", content=model_card(config, members, run))
    for member in members:
        yield PlannedFile(member.path, "checkpoint", source=work / member.path)
    for source in toolbox:
        for path, relative in source_files(source.folder):
            yield PlannedFile(f"InnerEye/{source.section}/{source.import_name}/{relative}", "toolbox", source=path)
    if extra_code is not None:
        for path, relative in source_files(extra_code):
            yield PlannedFile(f"{extra_code.name}/{relative}", "code", source=path)
