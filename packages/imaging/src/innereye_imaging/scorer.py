"""The scorer behind ``innereye score``: from image files to result files, with an installed runtime."""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from innereye_core.contract.providers import PrecisionRuntime
from innereye_core.errors import MissingPluginError
from innereye_core.exported_networks import FLOAT32
from innereye_core.model import Check, ScoreRequest, ScoreResult
from innereye_imaging.formats import read_image
from innereye_imaging.geometry import Grid
from innereye_imaging.loaded_networks import LoadedNetworks
from innereye_imaging.output_files import OutputFile, Writer, write_files
from innereye_imaging.pipeline import Segmentation, prepare_study, segment
from innereye_imaging.preview import draw_preview
from innereye_imaging.provenance import provenance_of
from innereye_imaging.report import Report, write_report
from innereye_imaging.review import read_validation_ranges, review
from innereye_imaging.score_outputs import ScoreOutputs, open_outputs
from innereye_imaging.statistics import structure_statistics, structure_volumes
from innereye_imaging.statistics_files import write_statistics
from innereye_imaging.study import Study, check_number_of_images

if TYPE_CHECKING:
    from innereye_core.contract.providers import Device, Progress, Providers, Runtime

_logger = logging.getLogger(__name__)

_DISTRIBUTION_OF_RUNTIME = {
    "torch": "innereye-segmentation",
    "onnx": "'innereye-onnx[cpu]'",
    "openvino": "innereye-openvino",
}


class ImageScorer:
    """Scores image files: read and check, segment, write what is asked for on the input's own grid.

    Several threads may use one scorer: one study at a time is segmented, while others are read and written.
    """

    name = "images"

    def __init__(self) -> None:
        self._networks = LoadedNetworks()
        self._one_at_a_time = threading.Lock()

    def score(self, request: ScoreRequest, providers: Providers, progress: Progress) -> ScoreResult:
        """Segment one study.

        Everything that can be refused early is: outputs first, then the number of images, the runtime, the images. The
        networks of a model stay loaded for the next study, until another model comes or nobody holds this one.

        Raises:
            InputError: an output exists and may not be overwritten, or an image cannot be used.
            UsageError: an output has no known file name ending, is an input or another output, or cannot hold what it
                shall.
            IntegrityError: a weight or a score is NaN, or a member of an ensemble was not loaded.
            MissingPluginError: no installed runtime can do it.
            StorageError: the disk is full or not writable.
        """
        started = time.perf_counter()
        config, folder = request.model.config, request.model.folder
        outputs = open_outputs(request, providers.image_formats())
        check_number_of_images(len(request.images), config)
        runtime, device = choose_runtime(request, providers.runtimes())
        ranges = None if folder is None else read_validation_ranges(folder)
        study = prepare_study(request.images, config, providers, mask=request.mask)
        result, of_network = self._segment(study, request, outputs, runtime, device, progress)
        grid, orientation_known, checks = study.input_grid, study.orientation_known, study.checks
        del study  # whose images may be as large as all the rest
        volumes = structure_volumes(result.labels, grid.voxel_volume_mm3, config.structure_names)
        compared, to_review = review(result.labels, volumes, ranges)
        summary = ScoreResult(
            segmentation=request.output,
            model=request.model_name,
            structures=volumes,
            checks=(*checks, *of_network, compared),
            seconds=time.perf_counter() - started,
            runtime=runtime.name,
            posteriors=request.posteriors or request.posteriors_folder,
            uncertainty=request.uncertainty,
            disagreement=None if outputs.disagreement is None else outputs.disagreement.path,
            statistics=request.statistics,
            preview=request.preview,
            report=request.report,
            review=to_review,
        )
        descriptions = _descriptions(request, outputs, result.labels, grid, summary, device, providers)
        write_files([*outputs.images(result, grid.affine, orientation_known), *descriptions])
        return replace(summary, seconds=time.perf_counter() - started)

    def _segment(
        self,
        study: Study,
        request: ScoreRequest,
        outputs: ScoreOutputs,
        runtime: Runtime,
        device: Device,
        progress: Progress,
    ) -> tuple[Segmentation, Sequence[Check]]:
        """The segmentation, and what the networks say about how they computed it."""
        with self._one_at_a_time:
            networks = self._networks.of(request.model, runtime, device, request.precision)
            _logger.info("Segmenting with runtime %s on %s", runtime.name, device)
            segmentation = segment(
                study,
                networks,
                request.model.config,
                posteriors=outputs.needs_posteriors,
                uncertainty=outputs.uncertainty is not None,
                progress=progress,
            )
            return segmentation, tuple(getattr(networks[0], "checks", ()))


def _descriptions(
    request: ScoreRequest,
    outputs: ScoreOutputs,
    labels: NDArray[np.uint8],
    grid: Grid,
    result: ScoreResult,
    device: Device,
    providers: Providers,
) -> Iterator[tuple[OutputFile, Writer]]:
    """Statistics, preview and report, as far as they are asked for, with what writes them."""
    if not (outputs.statistics or outputs.preview or outputs.report):
        return
    config, formats = request.model.config, providers.image_formats()
    first = read_image(request.images[0], formats)  # the study's own may be turned and resampled
    values = ((first if path is request.images[0] else read_image(path, formats)).voxels for path in request.images)
    channels = zip(config.image_channels, values, strict=True)
    with_numbers, with_picture = outputs.statistics or outputs.report, outputs.preview or outputs.report
    statistics = structure_statistics(labels, grid, config.structure_names, channels) if with_numbers else {}
    picture = draw_preview(first, labels, config) if with_picture else b""
    for output in outputs.statistics:
        yield (
            output,
            partial(write_statistics, statistics=statistics, channels=config.image_channels, model=request.model_name),
        )
    if outputs.preview:
        yield outputs.preview, partial(Path.write_bytes, data=picture)
    if outputs.report:
        report = Report(
            config=config,
            model=request.model_name,
            provenance=provenance_of(request.model.folder),
            members=len(request.model.checkpoints),
            images=dict(zip(config.image_channels, request.images, strict=True)),
            mask=request.mask,
            segmentation=request.output.name,
            statistics=statistics,
            checks=result.checks,
            review=result.review,
            runtime=result.runtime,
            device=device,
            seconds=result.seconds,
            created=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            preview=picture,
        )
        yield outputs.report, partial(write_report, report=report)


def choose_runtime(request: ScoreRequest, runtimes: Sequence[Runtime]) -> tuple[Runtime, Device]:
    """The runtime and device that a request is served with.

    ``auto`` takes the runtime of the highest rank (the first at a tie). The device ``auto`` is CUDA if any of the
    runtimes in question can run the model there, else the CPU.

    Raises:
        MissingPluginError: the named runtime, or any at all, is not installed, or none can run the model on the device.
    """
    if request.runtime != "auto":
        runtimes = [runtime for runtime in runtimes if runtime.name == request.runtime]
    if not runtimes:
        distribution = _DISTRIBUTION_OF_RUNTIME.get(request.runtime, "innereye-segmentation")
        missing = "No runtime is" if request.runtime == "auto" else f"Runtime {request.runtime} is not"
        raise MissingPluginError(f"{missing} installed that could evaluate the network; pip install {distribution}")
    devices: tuple[Device, ...] = ("cuda", "cpu") if request.device == "auto" else (request.device,)
    for device in devices:
        ranked = [(rank, runtime) for runtime in runtimes if (rank := _rank(runtime, request, device)) is not None]
        if ranked:
            return max(ranked, key=lambda candidate: candidate[0])[1], device
    names = ", ".join(runtime.name for runtime in runtimes)
    if request.precision != FLOAT32:
        raise MissingPluginError(
            f"No installed runtime can run this model with --precision {request.precision} (asked: {names}); export it "
            "with 'innereye export onnx', and pip install innereye-openvino for bf16, 'innereye-onnx[gpu]' for fp16"
        )
    if request.device == "cuda":
        raise MissingPluginError(
            f"No runtime can use a CUDA device here (asked: {names}); use --device cpu, or on a machine with a GPU "
            "pip install a torch that was built for its CUDA"
        )
    raise MissingPluginError(
        f"No installed runtime can run this model on the CPU (asked: {names}); pip install innereye-segmentation, or "
        "export the model with 'innereye export onnx' for the runtimes onnx and openvino"
    )


def _rank(runtime: Runtime, request: ScoreRequest, device: Device) -> int | None:
    if request.precision == FLOAT32:
        return runtime.rank(request.model, device)
    if isinstance(runtime, PrecisionRuntime) and request.precision in runtime.precisions:
        return runtime.rank(request.model, device, request.precision)
    return None
