"""Makes a package: has a packager lay out the plan, writes the manifest, publishes the folder, tells observers."""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core.config import relative_posix_path
from innereye_core.errors import UsageError
from innereye_core.manifest import MANIFEST_FILE, open_package, write_manifest
from innereye_core.model import (
    Manifest,
    Member,
    MemberRecord,
    Package,
    PackageKind,
    PackagePlan,
    PlannedFile,
    PluginRecord,
    Run,
    RunRecord,
    ToolboxSource,
)
from innereye_core.packaging.environment_files import (
    third_party_requirements,
)
from innereye_core.packaging.plan import MemberSource, PackageOptions, plan_package
from innereye_core.publishing import publish, staged_folder, storage_errors

if TYPE_CHECKING:
    from innereye_core.host import Host


def make_package(
    sources: Sequence[MemberSource], run: Run, kind: PackageKind, target: Path, options: PackageOptions, host: Host
) -> Package:
    """Make the package of one run, or of the folds of a cross-validation.

    Args:
        sources: one selected candidate, or one per fold in the order of folds.
        run: the run that the package belongs to; the parent run for folds.
        kind: which of the two package folders this is.
        target: where the folder shall be; it is either not there afterwards, or complete.
        options: how it is made.
        host: what the plugins offer.

    Raises:
        InputError: something that goes into the package cannot be used.
        IntegrityError: a weight is NaN or infinite.
        RegistryError: ``target`` exists and is not to be replaced.
        StorageError: the disk is full or not writable.
    """
    packager = host.packager(options.packager)
    merger = host.environment_merger(options.merge_strategy)
    with storage_errors(f"package {target}"), staged_folder(target) as staged:
        work, folder = staged / "work", staged / kind
        work.mkdir()
        folder.mkdir()
        plan = plan_package(sources, run, kind, options, merger, host, work)
        packager.build(plan, folder)
        extra = host.package_files(plan)
        _add_files(extra, folder)
        _seal(plan, (*plan.files, *extra), folder)
        publish(folder, target, replace=options.replace)
    made = open_package(target)
    host.after_package(made)
    return made


def _add_files(extra: Sequence[PlannedFile], folder: Path) -> None:
    for file in extra:
        try:
            target = folder / relative_posix_path(file.path)
        except ValueError as error:
            raise UsageError(f"a plugin adds {file.path!r} to the package: {error}; mend the plugin") from None
        if target.exists() or file.path == MANIFEST_FILE:
            raise UsageError(f"a plugin adds {file.path!r} to the package, which is there already; mend the plugin")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.source.read_bytes() if file.source is not None else file.content or b"")


def _seal(plan: PackagePlan, files: Sequence[PlannedFile], folder: Path) -> None:
    """Write manifest.json over everything that is in the folder."""
    manifest = Manifest(
        kind=plan.kind,
        model_name=plan.config.model_name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        files=(),
        plugins=tuple(
            PluginRecord(source.plugin_name, source.plugin_module, source.distribution, source.version)
            for source in plan.toolbox
            if source.plugin_name is not None and source.plugin_module is not None
        ),
        versions=_versions(plan.toolbox),
        run=RunRecord(plan.run.id, plan.run.name, plan.run.source),
        members=tuple(_member_record(member) for member in plan.members),
        extra_code=plan.config.extra_code_directory,
        environment_warnings=plan.environment.warnings,
    )
    write_manifest(folder, manifest, {file.path: file.role for file in files})


def _member_record(member: Member) -> MemberRecord:
    selection = member.selection
    return MemberRecord(
        path=member.path,
        run=member.run.id,
        fold=member.run.fold,
        epoch=selection.selected.epoch,
        candidates=len(selection.candidates),
        policy=selection.policy,
        score=None if math.isnan(selection.score) else selection.score,
        checkpoint=member.checkpoint,
    )


def _versions(toolbox: Sequence[ToolboxSource]) -> dict[str, str]:
    """Python, the toolbox, and what the toolbox needs, as installed here and now."""
    versions = {source.distribution: source.version for source in toolbox}
    for distribution in {source.distribution for source in toolbox if source.needed_to_score}:
        for requirement in third_party_requirements(distribution):
            versions.setdefault(requirement.name, importlib.metadata.version(requirement.name))
    return {"python": platform.python_version(), **dict(sorted(versions.items()))}
