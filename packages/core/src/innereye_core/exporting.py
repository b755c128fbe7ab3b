"""Adds another form of a model to a copy of its package: copy, export, new manifest, publish."""

from __future__ import annotations

import dataclasses
import datetime
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core import __version__
from innereye_core.errors import MissingPluginError, UsageError
from innereye_core.exported_networks import FLOAT32
from innereye_core.host import Host, installed_host
from innereye_core.manifest import MANIFEST_FILE, copy_package, open_package, write_manifest
from innereye_core.model import Check, Manifest, Package, PluginRecord, ToolboxSource
from innereye_core.packaging.source_trees import source_files
from innereye_core.progress import Silent
from innereye_core.publishing import publish, refuse_existing, staged_folder, storage_errors
from innereye_core.registered_models import load_model

if TYPE_CHECKING:
    from innereye_core.contract.providers import Exporter, Progress

_log = logging.getLogger(__name__)

_DISTRIBUTIONS = {"onnx": "'innereye-onnx[cpu,export]'"}
"""What to install for a form that the project offers but that is not there."""

_RUNTIME_SECTION = "ML"
"""Where the toolbox's own runtimes are in a package."""


@dataclass(frozen=True)
class ExportedPackage:
    """A package with another form of its model, and what was measured when that was made."""

    package: Package
    added: tuple[str, ...]
    """Paths of the new files (relative, POSIX)."""
    checks: tuple[Check, ...]


def export(
    form: str,
    model: str | Path,
    output: str | Path,
    *,
    precision: str = FLOAT32,
    replace: bool = False,
    registry: str | None = None,
    host: Host | None = None,
    progress: Progress | None = None,
) -> ExportedPackage:
    """Write a complete copy of a model's package that also holds the model in another form.

    The copy has the files of the original as they are, and a manifest of its own. It also carries those of the
    toolbox's runtimes that were not installed when the model was packaged, so that its score.py can use the new form.
    An earlier export to the same form is left out.

    Args:
        form: name of the exporter, such as ``onnx``.
        model: a package folder, or a model id such as ``Prostate:892``; it stays as it is.
        output: folder that shall hold ``final_model`` (or ``final_ensemble_model``).
        precision: one of the exporter's; ``fp32`` is the default of all.
        replace: whether an existing package there is replaced.
        registry: where a model id is looked up; None: the default registry.
        host: what the plugins offer; None: the installed ones.
        progress: where to say how far it is; None: nowhere.

    Raises:
        InputError: the model cannot be used, or its network cannot be exported.
        IntegrityError: the package is damaged, or the new form does not compute what the model computes.
        MissingPluginError: no installed plugin exports to this form, or a package that it needs is missing.
        RegistryError: the target exists and is not to be replaced, or there is no such model.
        StorageError: the disk failed.
        UsageError: the copy would take the place of the original, or there is no such precision.
    """
    host, progress = host or installed_host(), progress or Silent()
    exporter = _exporter(form, precision, host)
    loaded = load_model(model, registry, host=host, progress=progress)
    package = loaded.package
    target = Path(output).resolve() / package.manifest.kind
    if target == package.folder or package.folder.is_relative_to(target) or target.is_relative_to(package.folder):
        raise UsageError(f"--output {output}: the copy would lie in the place of {package.folder}; choose another")
    if not replace:
        refuse_existing(target)
    with storage_errors(f"package {target}"), staged_folder(target) as staged:
        copy_package(package, staged, progress)
        kept = _without(form, package.manifest, staged)
        draft, code = _with_runtimes(kept, staged, host)
        checks = exporter.export(loaded.files, staged, precision, host, progress)
        roles = {**_new_files(draft, staged, form), **dict.fromkeys(code, "toolbox")}
        made = write_manifest(staged, draft, {**roles, **{file.path: file.role for file in kept.files}})
        _refuse_changes(kept, made.manifest, form)
        publish(staged, target, replace=replace)
    made = open_package(target)
    host.after_package(made)
    return ExportedPackage(made, tuple(sorted(roles)), tuple(checks))


def _exporter(form: str, precision: str, host: Host) -> Exporter:
    exporters = {exporter.name: exporter for exporter in host.exporters()}
    if form not in exporters and form in _DISTRIBUTIONS:
        raise MissingPluginError(f"export to {form!r} needs a plugin: pip install {_DISTRIBUTIONS[form]}")
    if form not in exporters:
        raise UsageError(f"there is no exporter {form!r}; there are: {', '.join(sorted(exporters)) or 'none'}")
    exporter = exporters[form]
    if precision not in exporter.precisions:
        raise UsageError(f"--precision {precision}: {form} has {', '.join(exporter.precisions)}; choose one of them")
    return exporter


def _without(form: str, manifest: Manifest, folder: Path) -> Manifest:
    """Remove what an earlier export to the same form has added."""
    for file in manifest.files:
        if file.role == form:
            (folder / file.path).unlink()
    return dataclasses.replace(manifest, files=tuple(file for file in manifest.files if file.role != form))


def _with_runtimes(manifest: Manifest, folder: Path, host: Host) -> tuple[Manifest, list[str]]:
    """Add runtimes that the package does not carry yet; what it says then, and the paths of their code."""
    carried = {plugin.name for plugin in manifest.plugins}
    missing = [
        source
        for source in host.toolbox_sources()
        if source.section == _RUNTIME_SECTION and source.plugin_name is not None and source.plugin_name not in carried
    ]
    packaged = manifest.versions.get("innereye-core")
    if missing and packaged != __version__:
        _log.warning(
            "packaged with innereye-core %s, and this is %s: score.py in the package will not find %s; package the "
            "model again to change that",
            packaged,
            __version__,
            ", ".join(source.distribution for source in missing),
        )
        missing = []
    code = [path for source in missing for path in _copy_source(source, folder)]
    draft = dataclasses.replace(
        manifest,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        plugins=(*manifest.plugins, *(_plugin_record(source) for source in missing)),
        versions={**manifest.versions, **{source.distribution: source.version for source in missing}},
    )
    return draft, code


def _copy_source(source: ToolboxSource, folder: Path) -> list[str]:
    paths = []
    for file, relative in source_files(source.folder):
        path = f"InnerEye/{source.section}/{source.import_name}/{relative}"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(file.read_bytes())
        paths.append(path)
    return paths


def _plugin_record(source: ToolboxSource) -> PluginRecord:
    if source.plugin_name is None or source.plugin_module is None:
        raise UsageError(f"{source.distribution}: its toolbox source names no plugin module; mend the plugin")
    return PluginRecord(source.plugin_name, source.plugin_module, source.distribution, source.version)


def _new_files(manifest: Manifest, folder: Path, role: str) -> dict[str, str]:
    known = {MANIFEST_FILE, *(file.path for file in manifest.files)}
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()]
    return {path: role for path in paths if path not in known}


def _refuse_changes(before: Manifest, after: Manifest, form: str) -> None:
    """The copy must hold every file of the original as it was."""
    found = {file.path: file.sha256 for file in after.files}
    for file in before.files:
        if found.get(file.path) != file.sha256:
            raise UsageError(f"exporter {form!r} changes {file.path!r}, which is the model's; mend the plugin")
