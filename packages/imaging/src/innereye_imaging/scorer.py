"""The scorer behind ``innereye score``: from image files to the segmentation file, with an installed runtime."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from innereye_core.errors import IntegrityError, MissingPluginError, UsageError
from innereye_core.model import ScoreRequest, ScoreResult
from innereye_imaging.geometry import Image
from innereye_imaging.output_files import open_output, write_images
from innereye_imaging.pipeline import prepare_study, segment
from innereye_imaging.statistics import structure_volumes
from innereye_imaging.study import check_number_of_images

if TYPE_CHECKING:
    from innereye_core.contract.providers import Device, Progress, Providers, Runtime

_logger = logging.getLogger(__name__)

_DISTRIBUTION_OF_RUNTIME = {
    "torch": "innereye-segmentation",
    "onnx": "'innereye-onnx[cpu]'",
    "openvino": "innereye-openvino",
}


class ImageScorer:
    """Scores image files: read and check, segment, write labels (and posteriors) on the input's own grid."""

    name = "images"

    def score(self, request: ScoreRequest, providers: Providers, progress: Progress) -> ScoreResult:
        """Segment one study.

        Everything that can be refused early is: outputs first, then the number of images, the runtime, the images.

        Raises:
            InputError: the output exists and may not be overwritten, or an image cannot be used.
            UsageError: an output has no known file name ending, is an input, or cannot hold posteriors.
            IntegrityError: a weight or a score is NaN, or a member of an ensemble was not loaded.
            MissingPluginError: no installed runtime can do it.
            StorageError: the disk is full or not writable.
        """
        started = time.perf_counter()
        config = request.model.config
        formats = providers.image_formats()
        labels_file = open_output(request.output, formats, request.overwrite)
        posteriors_file = None
        if request.posteriors is not None:
            posteriors_file = open_output(request.posteriors, formats, request.overwrite, dimensions=4)
        _refuse_clashes(request)
        check_number_of_images(len(request.images), config)
        runtime, device = choose_runtime(request, providers.runtimes())
        study = prepare_study(request.images, config, providers)
        networks = runtime.load(request.model, device)
        if len(networks) != len(request.model.checkpoints):
            raise IntegrityError(
                f"Runtime {runtime.name} loaded {len(networks)} of {len(request.model.checkpoints)} checkpoints; "
                "no member of an ensemble may be left out, package the model again"
            )
        _logger.info("Segmenting with runtime %s on %s", runtime.name, device)
        result = segment(study, networks, config, posteriors=posteriors_file is not None, progress=progress)
        affine, known = study.input_grid.affine, study.orientation_known
        outputs = [(labels_file, Image(result.labels, affine, known))]
        if posteriors_file is not None and result.posteriors is not None:
            outputs.append((posteriors_file, Image(result.posteriors, affine, known)))
        write_images(outputs)
        return ScoreResult(
            segmentation=request.output,
            model=request.model_name,
            structures=structure_volumes(result.labels, study.input_grid.voxel_volume_mm3, config.structure_names),
            checks=study.checks,
            seconds=time.perf_counter() - started,
            runtime=runtime.name,
            posteriors=request.posteriors,
        )


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
        ranked = [(rank, runtime) for runtime in runtimes if (rank := runtime.rank(request.model, device)) is not None]
        if ranked:
            return max(ranked, key=lambda candidate: candidate[0])[1], device
    names = ", ".join(runtime.name for runtime in runtimes)
    if request.device == "cuda":
        raise MissingPluginError(
            f"No runtime can use a CUDA device here (asked: {names}); use --device cpu, or on a machine with a GPU "
            "pip install a torch that was built for its CUDA"
        )
    raise MissingPluginError(
        f"No installed runtime can run this model on the CPU (asked: {names}); pip install innereye-segmentation"
    )


def _refuse_clashes(request: ScoreRequest) -> None:
    """An output must not replace an input or another output."""
    outputs = [path.resolve() for path in (request.output, request.posteriors) if path is not None]
    if len(set(outputs)) < len(outputs):
        raise UsageError(f"Segmentation and posteriors would both be written to {request.output}; name two files")
    for image in request.images:
        if image.resolve() in outputs:
            raise UsageError(f"The output {image} is also an input image, which would be lost; choose another output")
