"""Networks in ONNX Runtime: opens exported files, and evaluates them on batches of patches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnxruntime

from innereye_core.errors import InputError
from innereye_core.exported_networks import IMAGE, SCORES, ExportedNetworks, threads_asked_for
from innereye_core.model import Check
from innereye_onnx.installed import check_installed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from innereye_core.contract.providers import Device

CPU_PROVIDER = "CPUExecutionProvider"


class Session(Protocol):
    """An open file, on whatever device."""

    provider: str
    """What really runs it, as ONNX Runtime names it."""

    def run(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores (batch, class, z', y', x') in memory of their own, for patches (batch, channel, z, y, x)."""
        ...


class OnnxNetwork:
    """A loaded network, ready to be evaluated.

    Attributes:
        geometry: what the network asks of patches.
        checks: what really runs, for the report of a result.
    """

    def __init__(self, exported: ExportedNetworks, session: Session) -> None:
        self.geometry = exported.geometry
        self.checks = (
            Check("runtime", "passed", f"{check_installed()}: {session.provider}"),
            exported.precision_check(),
        )
        self._exported = exported
        self._session = session

    def evaluate(
        self, patches: NDArray[np.float32], keep: tuple[slice, slice, slice] | None = None
    ) -> NDArray[np.float32]:
        """Class scores of a batch of patches, before the activation.

        Args:
            patches: float32, (batch, channel, z, y, x).
            keep: the region (z, y, x) of the output that is wanted; None: all of it.

        Returns:
            float32, (batch, class, z', y', x') of exactly the region ``keep``.

        Raises:
            InputError: the network was exported for patches of another size.
        """
        self._exported.check_patches(patches.shape)
        scores = self._session.run(np.require(patches, np.float32, "C"))
        self._exported.check_scores(patches.shape, scores.shape)
        return scores if keep is None else scores[:, :, *keep]


class CpuSession:
    """A file open on the CPU.

    Args:
        path: the ONNX file; external weights lie beside it.

    Raises:
        InputError: ONNX Runtime cannot read it.
    """

    def __init__(self, path: Path) -> None:
        options = session_options()
        # Measured on a U-Net with patches of 64 × 96 × 96: memory patterns take 8 % more memory and are no faster; the
        # arena takes 15 % more than none, and a fifth less time.
        options.enable_mem_pattern = False
        # Between two batches the processors are the scorer's, which has patches to cut and to stitch.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.intra_op_num_threads = threads_asked_for() or 0  # 0: one per core
        self._session = open_session(path, options, [CPU_PROVIDER])
        self.provider = self._session.get_providers()[0]

    def run(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores for a batch of patches. Several threads may call this at the same time."""
        scores: NDArray[np.float32] = self._session.run([SCORES], {IMAGE: patches})[0]
        return scores


def load_networks(exported: ExportedNetworks, device: Device) -> Sequence[OnnxNetwork]:
    """Open every file of an exported model.

    Raises:
        InputError: ONNX Runtime cannot read a file.
        MissingPluginError: there is no such device.
    """
    if device == "cpu":
        return [OnnxNetwork(exported, CpuSession(path)) for path in exported.files]
    from innereye_onnx.cuda import CudaSession

    return [OnnxNetwork(exported, CudaSession(path)) for path in exported.files]


def session_options() -> onnxruntime.SessionOptions:
    """Options that all devices share."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone: warnings are for developers, and bypass Python's logging
    return options


def open_session(
    path: Path, options: onnxruntime.SessionOptions, providers: Sequence[str | tuple[str, dict[str, str]]]
) -> onnxruntime.InferenceSession:
    """Open a file with exactly these providers: no other takes their place without being asked.

    Raises:
        InputError: ONNX Runtime cannot read it, or not with these providers.
    """
    try:
        return onnxruntime.InferenceSession(path, options, providers=list(providers), enable_fallback=0)
    except Exception as error:  # onnxruntime's own classes have no common base
        raise InputError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot open it: {' '.join(str(error).split())}; use "
            "another --runtime, or export the model again"
        ) from error
