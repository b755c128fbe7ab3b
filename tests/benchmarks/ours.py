"""What one of our runtimes does: through the public contract, with the time inside of the network taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.jobs import Figures, Job
from benchmarks.stopwatch import Stopwatch
from innereye_core.config import LargestComponent
from innereye_core.contract.providers import Device, Network, Runtime
from innereye_core.host import Host, installed_host
from innereye_core.model import ModelFiles, ScoreRequest
from innereye_core.progress import Silent
from innereye_core.registered_models import load_model


class _TimedNetwork:
    """A network whose evaluations are timed; all else is the network's own."""

    def __init__(self, network: Network, stopwatch: Stopwatch) -> None:
        self._network = network
        self._stopwatch = stopwatch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def evaluate(self, *arguments: Any, **options: Any) -> Any:
        with self._stopwatch.network():
            return self._network.evaluate(*arguments, **options)


def _timed(network: Network, stopwatch: Stopwatch) -> Any:
    return _TimedNetwork(network, stopwatch)


class _TimedRuntime:
    """A runtime whose networks are timed."""

    def __init__(self, runtime: Runtime, precision: str, stopwatch: Stopwatch) -> None:
        self._runtime = runtime
        self._precision = precision
        self._stopwatch = stopwatch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def load(self, model: ModelFiles, device: Device) -> Sequence[Network]:
        runtime: Any = self._runtime
        # Only runtimes that have other precisions take this argument.
        networks = (
            runtime.load(model, device) if self._precision == "fp32" else runtime.load(model, device, self._precision)
        )
        return [_timed(network, self._stopwatch) for network in networks]


class _Providers:
    """The installed plugins with one runtime, which is timed."""

    def __init__(self, host: Host, runtime: Runtime) -> None:
        self._host = host
        self._runtime = runtime

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def runtimes(self) -> Sequence[Runtime]:
        return [self._runtime]


def segment(job: Job) -> tuple[NDArray[np.uint8], Figures]:
    """Labels of the job's volume, from voxels in memory, after one patch."""
    from innereye_imaging.pipeline import prepare_study
    from innereye_imaging.pipeline import segment as segment_study

    host = installed_host()
    model, stopwatch = _model(job), Stopwatch()
    networks = _runtime(host, job, stopwatch).load(model, job.device)
    _evaluate_one_patch(networks, job)
    study = prepare_study([Path(job.image)], model.config, host)
    with stopwatch.task():
        labels = segment_study(study, networks, model.config).labels
    return labels, stopwatch.figures


def score(job: Job) -> Figures:
    """What ``innereye score`` does, from file to file."""
    host, stopwatch = installed_host(), Stopwatch()
    model = _model(job)
    providers: Any = _Providers(host, _runtime(host, job, stopwatch))
    request = ScoreRequest(
        model=model,
        model_name="benchmark",
        images=(Path(job.image),),
        output=Path(job.output),
        overwrite=True,
        device=job.device,
        runtime=job.runtime,
    )
    with stopwatch.task():
        host.scorer().score(request, providers, Silent())
    return stopwatch.figures


def load(job: Job) -> Figures:
    """Load the network and evaluate one patch: what a runtime needs for itself."""
    host, stopwatch = installed_host(), Stopwatch()
    with stopwatch.task():
        _evaluate_one_patch(_runtime(host, job, stopwatch).load(_model(job), job.device), job)
    return stopwatch.figures


def _runtime(host: Host, job: Job, stopwatch: Stopwatch) -> Any:
    runtime = next(one for one in host.runtimes() if one.name == job.runtime)
    return _TimedRuntime(runtime, job.precision, stopwatch)


def _model(job: Job) -> ModelFiles:
    """The package's model, with the job's stride and stitching; the patches have the package's own size."""
    files = load_model(job.package).files
    inference = replace(files.config.inference, stride_zyx=job.stride_zyx, stitching=job.stitching)
    rules = files.config.postprocessing
    if job.largest_components:
        names = files.config.structure_names
        rules = replace(rules, largest_component=tuple(LargestComponent(structure=name) for name in names))
    return replace(files, config=replace(files.config, inference=inference, postprocessing=rules))


def _evaluate_one_patch(networks: Sequence[Network], job: Job) -> None:
    for network in networks:
        network.evaluate(np.zeros((1, 1, *job.crop_size_zyx), np.float32))
