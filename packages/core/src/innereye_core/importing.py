"""Makes packages of models that InnerEye packaged, without running any of the code that lies in their folders."""

from __future__ import annotations

import dataclasses
import logging
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from innereye_core.candidates import CHECKPOINT_FOLDER
from innereye_core.config_files import (
    INFERENCE_CONFIG_FILE,
    InnerEyeConfig,
    read_inference_config,
    read_model_config,
)
from innereye_core.config_rules import network_contradictions
from innereye_core.errors import InputError, MissingPluginError, UsageError
from innereye_core.host import Host, installed_host
from innereye_core.model import (
    FINAL_ENSEMBLE_MODEL,
    FINAL_MODEL,
    Candidate,
    Package,
    PackageKind,
    Run,
    ScoredCandidate,
    Selection,
)
from innereye_core.packaging.environment_files import ENVIRONMENT_FILE
from innereye_core.packaging.making import make_package
from innereye_core.packaging.plan import MemberSource, PackageOptions
from innereye_core.publishing import refuse_existing, storage_errors

if TYPE_CHECKING:
    from innereye_core.config import ModelConfig, Stitching, Structure
    from innereye_core.contract.providers import CheckpointFormat

_log = logging.getLogger(__name__)

_ORIGIN = "InnerEye"
"""What the manifest names as the source of the run, and as the policy that chose the checkpoint."""

_STITCHINGS: dict[str, Stitching] = {".pth.tar": "average", ".ckpt": "crop"}
"""How InnerEye scored with checkpoints of these endings."""

_OTHER_FOLD = re.compile(r"(?:^|/)OTHER_RUNS/(\d+)/")
"""Where InnerEye put checkpoints of the other folds of an ensemble; fold 0, which made it, kept its own in place."""


def import_innereye(
    folder: str | Path,
    config: str | Path,
    output: str | Path,
    options: PackageOptions | None = None,
    *,
    host: Host | None = None,
) -> Package:
    """Make ``final_model/`` of a package that InnerEye wrote; of several checkpoints, ``final_ensemble_model/``.

    The weights are taken over, the code and the environment are not: a model config says what InnerEye's Python classes
    said. Where it names no stitching, that is ``average`` for ``*.pth.tar`` and ``crop`` for ``*.ckpt``, as in the
    InnerEye that wrote them. Where it does not state the colour of a structure, or whether its holes are filled, and
    InnerEye's file does, that is taken over.

    Args:
        folder: InnerEye's package: ``model_inference_config.json``, in either schema, and the checkpoints it names.
        config: a complete ``model.yaml``. Its extra code directory, if any, is relative to it.
        output: folder that shall hold the package.
        options: how the package is made.
        host: what the plugins offer; None: the installed ones.

    Raises:
        InputError: a file is missing or unusable, the two configs contradict each other, or a checkpoint does not fit
            the network.
        IntegrityError: a weight is NaN or infinite.
        RegistryError: the package exists and is not to be replaced.
        StorageError: the disk is full or not writable.
        UsageError: the package would take the place of InnerEye's.
    """
    host, options = host or installed_host(), options or PackageOptions()
    folder, config_file = Path(folder).resolve(), Path(config)
    innereye = _read_innereye(folder)
    settings = _agreed(innereye, folder / INFERENCE_CONFIG_FILE, read_model_config(config_file), config_file)
    checkpoints = [_find_checkpoint(folder, path) for path in innereye.checkpoint_paths]
    settings = _with_stitching(settings, checkpoints, config_file)
    kind: PackageKind = FINAL_MODEL if len(checkpoints) == 1 else FINAL_ENSEMBLE_MODEL
    target = Path(output).resolve() / kind
    if target == folder or folder.is_relative_to(target):
        raise UsageError(f"--output {output}: the package would take the place of {folder}; choose another folder")
    if not options.replace:
        refuse_existing(target)
    if (folder / ENVIRONMENT_FILE).exists():
        _log.warning(
            "%s is left out: it is the environment of InnerEye's code, in whose place the installed toolbox goes; what "
            "the network needs besides can be given with --environment",
            folder / ENVIRONMENT_FILE,
        )
    with storage_errors("a temporary folder"):
        workspace = tempfile.TemporaryDirectory(prefix="innereye-")
    with workspace:
        # An empty folder of its own, so that nothing in InnerEye's is taken for a part of the run.
        run = Run(id=_name_of(folder), name=_name_of(folder), folder=Path(workspace.name), source=_ORIGIN)
        code = _extra_code(settings, config_file)
        note = f"imported from an InnerEye package ({innereye.model_configs_namespace})"
        folds = [None] if kind == FINAL_MODEL else _folds(innereye.checkpoint_paths)
        sources = [
            _member(checkpoint, fold, run, settings, code, note, host)
            for fold, checkpoint in sorted(zip(folds, checkpoints, strict=True), key=lambda pair: int(pair[0] or 0))
        ]
        return make_package(sources, run, kind, target, options, host)


# --- what is read -----------------------------------------------------------------------------------------------------


def _read_innereye(folder: Path) -> InnerEyeConfig:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one that has {INFERENCE_CONFIG_FILE}")
    found = read_inference_config(folder / INFERENCE_CONFIG_FILE)
    if not isinstance(found, InnerEyeConfig):
        raise InputError(f"{folder}: is no package of InnerEye, but one of this project already; use it as it is")
    paths = found.checkpoint_paths
    repeated = sorted({path for path in paths if paths.count(path) > 1})
    if repeated:
        raise InputError(f"{folder / INFERENCE_CONFIG_FILE}: checkpoint_paths: {repeated[0]!r} is there twice")
    return found


def _find_checkpoint(folder: Path, path: str) -> Path:
    """The file of one of ``checkpoint_paths``.

    InnerEye looked below the package. Its first versions wrote paths from the root of the project, such as
    ``outputs/checkpoints/3_checkpoint.pth.tar``, which in a folder that was tidied since lie in ``checkpoints``.
    """
    parts = PurePosixPath(path).parts
    below = parts[parts.index(CHECKPOINT_FOLDER) + 1 :] if CHECKPOINT_FOLDER in parts else parts
    places = dict.fromkeys((folder / path, folder.joinpath(CHECKPOINT_FOLDER, *below)))
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise InputError(
            f"{folder / INFERENCE_CONFIG_FILE}: checkpoint_paths: {path!r} is not in the folder (looked for "
            f"{' and '.join(map(str, places))}); put it there"
        )
    return found


def _name_of(folder: Path) -> str:
    """What the run is called: the folder, or the one around it where it only has the name that all packages have."""
    return (
        folder.parent.name if folder.name in (FINAL_MODEL, FINAL_ENSEMBLE_MODEL) and folder.parent.name else folder.name
    )


def _folds(paths: Sequence[str]) -> list[str]:
    """The fold that each checkpoint of an ensemble is from; its position where the paths do not say it."""
    matches = [_OTHER_FOLD.search(path) for path in paths]
    folds = [match[1] if match is not None else "0" for match in matches]
    return folds if len(set(folds)) == len(folds) else [str(position) for position in range(len(paths))]


def _extra_code(settings: ModelConfig, config_file: Path) -> Path | None:
    if settings.extra_code_directory is None:
        return None
    code = config_file.parent / settings.extra_code_directory
    if not code.is_dir():
        raise InputError(f"{config_file}: extra_code_directory: {code} is no folder")
    return code.resolve()


# --- the settings -----------------------------------------------------------------------------------------------------


def _agreed(innereye: InnerEyeConfig, innereye_file: Path, settings: ModelConfig, config_file: Path) -> ModelConfig:
    """The settings, with what only InnerEye's file states.

    Raises:
        InputError: the two contradict each other.
    """

    def contradiction(key: str, value: object, other_key: str, other: object) -> InputError:
        return InputError(
            f"{innereye_file}: {key}: {value!r} contradicts {config_file}: {other_key}: {other!r}; correct "
            "the one that is not what the network was trained for"
        )

    if innereye.model_name != settings.model_name:
        raise contradiction("model_name", innereye.model_name, "model_name", settings.model_name)
    for key in ("structure_names", "colours", "fill_holes"):
        values = getattr(innereye, key)
        if values is not None and len(values) != len(settings.structures):
            raise contradiction(key, values, "structures", settings.structure_names)
    stated = _stated_structures(config_file)
    structures: list[Structure] = []
    for i, structure in enumerate(settings.structures):
        where = f"structures.{i}"
        name = None if innereye.structure_names is None else innereye.structure_names[i]
        colour = None if innereye.colours is None else innereye.colours[i]
        fill_holes = None if innereye.fill_holes is None else innereye.fill_holes[i]
        if name not in (None, structure.name, structure.display_name):  # InnerEye wrote display names there
            raise contradiction("structure_names", name, f"{where}: name and display_name", structure.title)
        if None not in (colour, structure.colour) and colour != structure.colour:
            raise contradiction("colours", colour, f"{where}.colour", structure.colour)
        if fill_holes is not None and "fill_holes" in stated[i] and fill_holes != structure.fill_holes:
            raise contradiction("fill_holes", fill_holes, f"{where}.fill_holes", structure.fill_holes)
        structures.append(
            dataclasses.replace(
                structure,
                colour=structure.colour or colour,
                fill_holes=structure.fill_holes if fill_holes is None else fill_holes,
            )
        )
    return dataclasses.replace(settings, structures=tuple(structures))


def _stated_structures(config_file: Path) -> list[dict[str, Any]]:
    """The structures of a valid model config as they are written, without defaults."""
    from ruamel.yaml import YAML

    document = YAML(typ="safe", pure=True).load(config_file.read_text(encoding="utf-8-sig"))
    structures: list[dict[str, Any]] = document["structures"]
    return structures


def _with_stitching(settings: ModelConfig, checkpoints: Sequence[Path], config_file: Path) -> ModelConfig:
    from pydantic import ValidationError

    if settings.inference.stitching is not None:
        return settings
    known = {
        stitching for path in checkpoints for suffix, stitching in _STITCHINGS.items() if path.name.endswith(suffix)
    }
    if len(known) != 1 or not all(path.name.endswith(tuple(_STITCHINGS)) for path in checkpoints):
        raise InputError(
            f"{config_file}: inference.stitching: must be named, since it does not follow from the checkpoints "
            f"{', '.join(path.name for path in checkpoints)}; InnerEye's *.pth.tar need 'average', its *.ckpt 'crop'"
        )
    because = "InnerEye's *.ckpt were scored with stitching 'crop'"
    try:
        inference = dataclasses.replace(settings.inference, stitching=known.pop())
    except ValidationError as error:
        problem = error.errors()[0]["ctx"]["error"]
        raise InputError(f"{config_file}: inference.{problem} ({because})") from None
    settings = dataclasses.replace(settings, inference=inference)
    for problem in network_contradictions(settings):
        raise InputError(f"{config_file}: {problem} ({because})")
    return settings


# --- the members ------------------------------------------------------------------------------------------------------


def _member(
    checkpoint: Path, fold: str | None, run: Run, settings: ModelConfig, code: Path | None, note: str, host: Host
) -> MemberSource:
    """Write the weights of one checkpoint into the run's folder, with a note of where they come from."""
    format = _format_of(checkpoint, host.checkpoint_formats())
    epoch = format.epoch(checkpoint)
    weights = run.folder / (fold or "") / checkpoint.name
    weights.parent.mkdir(exist_ok=True)
    written = format.write_packaged(checkpoint, weights)
    candidate = Candidate(epoch, weights, format.name)
    return MemberSource(
        run=run if fold is None else dataclasses.replace(run, id=f"{run.id}_{fold}", parent=run.id, fold=fold),
        config=settings,
        extra_code=code,
        selection=Selection(_ORIGIN, candidate, (ScoredCandidate(candidate),), evaluated=False),
        packaged=dataclasses.replace(written, notes=(*written.notes, note)),
    )


def _format_of(checkpoint: Path, formats: Sequence[CheckpointFormat]) -> CheckpointFormat:
    if not formats:
        raise MissingPluginError(
            "no installed plugin reads checkpoints: pip install innereye-imaging innereye-segmentation"
        )
    found = next((format for format in formats if format.recognises(checkpoint)), None)
    if found is None:
        raise InputError(
            f"{checkpoint}: no installed checkpoint format recognises it; InnerEye wrote *.ckpt or *.pth.tar"
        )
    return found
