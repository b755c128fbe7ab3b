"""Exports the networks of a package to ONNX, and compares every runtime that takes such files with PyTorch."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from innereye_core.candidates import CHECKPOINT_FOLDER
from innereye_core.contract.providers import PrecisionRuntime
from innereye_core.digests import sha256_of_file
from innereye_core.errors import InputError, MissingPluginError
from innereye_core.exported_networks import (
    EXPORT_FILE,
    EXPORT_FOLDER,
    FLOAT32,
    Agreement,
    Export,
    ExportedFile,
    settled_geometry,
)
from innereye_core.manifest import MANIFEST_FILE, record_bytes
from innereye_core.model import Check, NetworkGeometry, SizeZYX
from innereye_onnx.agreement import Example, measure, report
from innereye_onnx.environment import environment_without_torch
from innereye_onnx.installed import check_installed
from innereye_onnx.phantom import larger_of, patch_sizes, phantom, smaller_of, smallest_patch
from innereye_onnx.torch_export import OPSET, HalfPrecision, any_size, one_size, trace, write_onnx
from innereye_segmentation.checkpoints.reading import load_weights
from innereye_segmentation.folding import fold_batch_normalization
from innereye_segmentation.networks.factory import build_network, describe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from innereye_core.config import ModelConfig
    from innereye_core.contract.providers import Progress, Providers
    from innereye_core.model import ModelFiles

_LIBRARIES = {"onnx": "onnxruntime", "openvino": "openvino"}
"""Runtimes that take the files, and the distribution that each needs, on a CPU."""

_EXPORTERS = ("innereye-onnx", "onnxscript", "torch")
"""Distributions whose versions are recorded."""

_VOXELS, _LARGEST_BATCH = 50_000, 12
"""An example has this many voxels where so many patches are enough for that."""

_SEED = 20


def export_model(
    model: ModelFiles, folder: Path, precision: str, providers: Providers, progress: Progress
) -> tuple[Check, ...]:
    """Add ``onnx/`` to a copy of a package; see :meth:`innereye_onnx.providers.OnnxExporter.export`.

    The networks are written with batch normalisation folded into convolutions by the same function as in the torch
    runtime, so that all runtimes compute with the same weights, and only the order of sums is left to differ. (They
    would fold it by themselves, in float32, and less of it: not the normalised sums of a U-Net's decoder.) What they
    are compared with is the network as it was trained, without folding.
    """
    runtimes = _runtimes_that_check(precision, providers)
    geometry = settled_geometry(model.config)
    if geometry is None:
        raise InputError(f"{model.folder}: its config does not say which patches the network takes; package it again")
    precisions = tuple(dict.fromkeys((FLOAT32, precision)))
    form, files, examples = _export_networks(model, geometry, folder, precisions, progress)
    libraries = {library: _version(library) for library in sorted(_LIBRARIES[runtime.name] for runtime in runtimes)}
    exporters = {name: importlib.metadata.version(name) for name in _EXPORTERS}
    export = Export(
        opset=OPSET,
        smallest_patch_zyx=form.smallest_patch_zyx,
        only_patch_size=form.only_patch_size,
        files=tuple(files),
        agreements=(),
        versions=exporters | libraries,
        source_digest=f"sha256:{sha256_of_file(folder / MANIFEST_FILE)}",
    )
    record = folder / EXPORT_FILE
    record.write_bytes(record_bytes(export))
    copied = dataclasses.replace(
        model, folder=folder, checkpoints=tuple(folder / file.checkpoint for file in files if file.precision == FLOAT32)
    )
    agreements: list[Agreement] = []
    with progress.track("Comparing with PyTorch", len(runtimes)) as advance:
        for runtime in runtimes:
            agreements += _agreements(runtime, copied, examples)
            advance(1)
    record.write_bytes(record_bytes(dataclasses.replace(export, agreements=tuple(agreements))))
    environment = environment_without_torch([f"{name}=={version}" for name, version in libraries.items()])
    (folder / EXPORT_FOLDER / "environment.yml").write_text(environment, encoding="utf-8")
    checks = tuple(report(agreement) for agreement in agreements)
    return (*checks, Check("patch size", "warning", form.cause)) if form.only_patch_size else checks


# --- one network ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Form:
    """Which patches the files take, and how that is shown to PyTorch's exporter."""

    sample: Tensor
    dynamic_axes: Mapping[int, Any]
    example_sizes_zyx: tuple[SizeZYX, ...]
    smallest_patch_zyx: SizeZYX
    only_patch_size: bool = False
    """Whether ``smallest_patch_zyx`` is the only size."""
    cause: str = ""
    """Why that is so."""


def _choose_form(network: nn.Module, config: ModelConfig, geometry: NetworkGeometry) -> _Form:
    """Every patch size that the network takes; else those from the smaller example on; else the crop size alone.

    The first that PyTorch's exporter can make of the network's code is taken.

    Raises:
        InputError: it can make none of them.
    """
    crop = config.inference.crop_size_zyx
    first, second = patch_sizes(crop, geometry)
    smaller, larger, smallest = smaller_of(first, second), larger_of(first, second), smallest_patch(geometry)
    sample = torch.from_numpy(phantom(config, 2, larger, _SEED))
    try:
        _scores(network, phantom(config, 1, smaller, _SEED))
        if _takes(network, phantom(config, 1, smallest, _SEED)):
            axes = any_size(geometry, crop, smallest)
            with contextlib.suppress(InputError):
                trace(network, sample, axes)
                return _Form(sample, axes, (first, second, smallest), smallest)
        axes = any_size(geometry, crop, smaller)
        trace(network, sample, axes)
        return _Form(sample, axes, (first, second), smaller)
    except InputError as error:
        cause = (
            f"the files take patches of {list(crop)} voxels (z, y, x) only: {error} (network.size_multiple_zyx in the "
            f"model config says which sizes are tried, here multiples of {list(geometry.size_multiple_zyx)})"
        )
    sample, axes = torch.from_numpy(phantom(config, 2, crop, _SEED)), one_size()
    trace(network, sample, axes)
    return _Form(sample, axes, (crop, crop), crop, only_patch_size=True, cause=cause)


def _examples(network: nn.Module, config: ModelConfig, sizes_zyx: Sequence[SizeZYX]) -> Iterator[Example]:
    """A batch of each size, no two with the same number of patches."""
    for number, size in enumerate(sizes_zyx):
        enough = min(-(-_VOXELS // math.prod(size)), _LARGEST_BATCH)
        patches = phantom(config, enough + number, size, number)
        yield Example(patches, _scores(network, patches))


def _takes(network: nn.Module, patches: NDArray[np.float32]) -> bool:
    try:
        _scores(network, patches)
    except InputError:
        return False
    return True


def _scores(network: nn.Module, patches: NDArray[np.float32]) -> NDArray[np.float32]:
    try:
        with torch.inference_mode():
            scores: NDArray[np.float32] = network(torch.from_numpy(patches)).float().numpy()
        return scores
    except Exception as error:  # the forward method is anybody's code
        raise InputError(f"the network takes no patches of {list(patches.shape[2:])}: {describe(error)}") from error


def _write(network: nn.Module, form: _Form, model: ModelFiles, checkpoint: str, precision: str, folder: Path) -> str:
    """Write one network in one precision; the path of the file (relative, POSIX)."""
    below = PurePosixPath(checkpoint).relative_to(CHECKPOINT_FOLDER)
    name = PurePosixPath(below.name.removesuffix(".tar")).stem
    suffix = "onnx" if precision == FLOAT32 else f"{precision}.onnx"
    path = (EXPORT_FOLDER / below.with_name(f"{name}.{suffix}")).as_posix()
    written = network if precision == FLOAT32 else HalfPrecision(network)
    properties = {
        "innereye.model": model.config.model_name,
        "innereye.checkpoint": checkpoint,
        "innereye.precision": precision,
        "innereye.opset": str(OPSET),
        "innereye.smallest_patch_zyx": str(list(form.smallest_patch_zyx)),
        "innereye.only_patch_size": str(form.only_patch_size).lower(),
    }
    try:
        write_onnx(trace(written, form.sample, form.dynamic_axes), folder / path, properties)
    except InputError as error:
        raise InputError(f"in {precision}, {error}") from error
    return path


# --- all of them ------------------------------------------------------------------------------------------------------


def _export_networks(
    model: ModelFiles, geometry: NetworkGeometry, folder: Path, precisions: Sequence[str], progress: Progress
) -> tuple[_Form, list[ExportedFile], list[tuple[Example, ...]]]:
    """Write every network; what the files take, the files, and examples of each checkpoint to compare runtimes on."""
    form: _Form | None = None
    files: list[ExportedFile] = []
    examples = []
    with progress.track("Exporting", len(model.checkpoints)) as advance:
        for path in model.checkpoints:
            checkpoint = path.relative_to(model.folder or path.parent).as_posix()
            network = build_network(model.config.network, model.extra_code).eval().requires_grad_(False)
            load_weights(network, path)
            try:
                form = form or _choose_form(network, model.config, geometry)
                examples.append(tuple(_examples(network, model.config, form.example_sizes_zyx)))
                with torch.no_grad():
                    fold_batch_normalization(network, form.sample, network(form.sample))
                for precision in precisions:
                    written = _write(network, form, model, checkpoint, precision, folder)
                    files.append(ExportedFile(written, checkpoint, precision))
            except InputError as error:
                raise InputError(f"network.factory {model.config.network.factory}: {error}") from error
            advance(1)
    if form is None:
        raise InputError(f"{model.folder}: names no checkpoint; package the model again")
    return form, files, examples


def _runtimes_that_check(precision: str, providers: Providers) -> list[PrecisionRuntime]:
    """The installed runtimes that take the files.

    Raises:
        MissingPluginError: there is none for this precision, so that nothing could be compared.
    """
    found = [
        runtime
        for runtime in providers.runtimes()
        if isinstance(runtime, PrecisionRuntime)
        and runtime.name in _LIBRARIES
        and importlib.util.find_spec(_LIBRARIES[runtime.name]) is not None
    ]
    if not any(precision in runtime.precisions for runtime in found):
        raise MissingPluginError(
            f"no runtime is installed in which a network in {precision} could be compared with PyTorch: "
            "pip install 'innereye-onnx[cpu]'"
        )
    return found


def _agreements(
    runtime: PrecisionRuntime, model: ModelFiles, examples: Sequence[Sequence[Example]]
) -> Iterator[Agreement]:
    """What a runtime computes in each of its precisions that the files and this machine allow, beside PyTorch."""
    for precision in runtime.precisions:
        if precision == FLOAT32 or runtime.rank(model, "cpu", precision) is not None:
            networks = runtime.load(model, "cpu", precision)
            yield measure(networks, examples, model.config.network.activation, runtime.name, precision)


def _version(library: str) -> str:
    return check_installed().split()[1] if library == "onnxruntime" else importlib.metadata.version(library)
