"""Networks in ONNX Runtime on a CUDA GPU: bound inputs and outputs, replayed as CUDA graphs."""

from __future__ import annotations

import functools
import itertools
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from innereye_core.errors import InputError, MissingPluginError
from innereye_core.exported_networks import IMAGE, SCORES
from innereye_onnx.sessions import CPU_PROVIDER, open_session, session_options

if TYPE_CHECKING:
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

CUDA_PROVIDER = "CUDAExecutionProvider"

_FULL_PRECISION = {"use_tf32": "0"}
"""Convolutions in float32, which the provider would round to TF32 by itself."""


@functools.cache
def runs_on_cuda(path: Path) -> bool:
    """Whether a session with this file really runs on a GPU, which only a session can tell."""
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return False
    try:
        session = open_session(path, session_options(), [(CUDA_PROVIDER, _FULL_PRECISION), CPU_PROVIDER])
    except InputError as error:
        _log.info("%s", error)
        return False
    return bool(session.get_providers()[0] == CUDA_PROVIDER)


class CudaSession:
    """A file open on the first GPU.

    Args:
        path: the ONNX file; external weights lie beside it.

    Raises:
        InputError: ONNX Runtime cannot read it.
        MissingPluginError: there is no GPU that ONNX Runtime can use.
    """

    provider = CUDA_PROVIDER

    def __init__(self, path: Path) -> None:
        if not runs_on_cuda(path):
            raise MissingPluginError(
                f"device cuda: ONNX Runtime {onnxruntime.__version__} runs on "
                f"{', '.join(onnxruntime.get_available_providers())} here; choose --device cpu, or pip uninstall -y "
                "onnxruntime && pip install 'innereye-onnx[gpu]' on a machine with a GPU"
            )
        try:
            options = {**_FULL_PRECISION, "enable_cuda_graph": "1"}
            session, graphs = open_session(path, session_options(), [(CUDA_PROVIDER, options)]), True
        except InputError as error:  # a node that only the CPU has: the others still gain from the GPU
            _log.info("%s runs without CUDA graphs: %s", path.name, error)
            options = dict(_FULL_PRECISION)
            session, graphs = open_session(path, session_options(), [(CUDA_PROVIDER, options), CPU_PROVIDER]), False
        self._session = BoundSession(session, "cuda", graphs=graphs)

    def run(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores for a batch of patches."""
        return self._session.run(patches)


@dataclass(frozen=True)
class _Places:
    """Where input and output of one shape stay, as CUDA graphs need them to."""

    image: onnxruntime.OrtValue
    binding: onnxruntime.IOBinding
    options: onnxruntime.RunOptions


class BoundSession:
    """A session whose inputs and outputs stay at fixed places on its device, one pair for each shape of patches.

    Args:
        session: with the input ``image`` and the output ``scores``.
        device: ``cuda`` or ``cpu``.
        graphs: whether each shape is captured as a CUDA graph of its own.
    """

    def __init__(self, session: onnxruntime.InferenceSession, device: str, *, graphs: bool) -> None:
        self._session = session
        self._device = device
        self._graphs = graphs
        self._numbers = itertools.count(1)
        self._places: dict[tuple[int, ...], _Places] = {}
        self._lock = threading.Lock()

    def run(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores for a batch of patches, in memory of their own. Threads wait for one another."""
        with self._lock:
            places = self._places.get(patches.shape)
            if places is None:
                places = self._places[patches.shape] = self._bind(patches)
            places.image.update_inplace(patches)
            self._session.run_with_iobinding(places.binding, places.options)
            return np.array(places.binding.get_outputs()[0].numpy())

    def _bind(self, patches: NDArray[np.float32]) -> _Places:
        image = onnxruntime.OrtValue.ortvalue_from_numpy(patches, self._device)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(IMAGE, image)
        binding.bind_output(SCORES, self._device)
        ungraphed = onnxruntime.RunOptions()
        ungraphed.add_run_config_entry("gpu_graph_id", "-1")
        self._session.run_with_iobinding(binding, ungraphed)  # tells the shape of the scores
        scores = binding.get_outputs()[0]
        binding.clear_binding_outputs()
        binding.bind_ortvalue_output(SCORES, scores)
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(next(self._numbers)) if self._graphs else "-1")
        return _Places(image, binding, options)
