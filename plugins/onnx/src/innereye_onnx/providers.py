"""What this plugin offers, as light classes: onnxruntime and torch are imported when a method needs them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core.errors import InputError, MissingPluginError

if TYPE_CHECKING:
    from innereye_core.contract.providers import Device, Network, Progress, Providers
    from innereye_core.model import Check, ModelFiles


class OnnxRuntime:
    """Evaluates exported networks with ONNX Runtime, on the CPU and on CUDA GPUs."""

    name = "onnx"
    precisions = ("fp32", "fp16")

    _SPEED = 100
    """In percent of eager PyTorch, on both devices. On two CPU cores with AVX-512 it took 0.75 to 1.03 of eager
    PyTorch's time (0.71 on another machine), the torch runtime 0.64; so it is for where PyTorch is not installed."""

    def rank(self, model: ModelFiles, device: Device, precision: str = "fp32") -> int | None:
        """Speed in percent of eager PyTorch; None where the package has no such file, or ONNX Runtime no such device.

        A GPU counts only if a session really runs on it.
        """
        if importlib.util.find_spec("onnxruntime") is None:
            return None
        from innereye_core.exported_networks import find_exported

        exported = find_exported(model, self.name, precision, stored=precision)
        if exported is None:
            return None
        if device == "cuda":
            from innereye_onnx.cuda import runs_on_cuda

            return self._SPEED if runs_on_cuda(exported.files[0]) else None
        return self._SPEED

    def load(self, model: ModelFiles, device: Device, precision: str = "fp32") -> Sequence[Network]:
        """Load one network per checkpoint.

        Raises:
            InputError: the package has no ONNX file in this precision, or ONNX Runtime cannot read it.
            MissingPluginError: ONNX Runtime is not installed, is installed in two builds, or has no such device.
        """
        from innereye_core.exported_networks import find_exported
        from innereye_onnx.installed import check_installed

        exported = find_exported(model, self.name, precision, stored=precision)
        if exported is None:
            raise InputError(
                f"{model.folder or model.checkpoints[0]}: has no ONNX files of {precision} for its crop size; make "
                f"them with 'innereye export onnx MODEL --precision {precision} --output DIR'"
            )
        check_installed()
        from innereye_onnx.sessions import load_networks

        return load_networks(exported, device)


class OnnxExporter:
    """``innereye export onnx``: adds ``onnx/`` to a copy of a package."""

    name = "onnx"
    precisions = ("fp32", "fp16")

    _NEEDED = ("torch", "onnxscript", "innereye_segmentation")

    def export(
        self, model: ModelFiles, folder: Path, precision: str, providers: Providers, progress: Progress
    ) -> Sequence[Check]:
        """Export every checkpoint to ONNX, and check every installed runtime that takes such files against PyTorch.

        Args:
            model: the packaged model.
            folder: a private copy of the package.
            precision: ``fp16`` adds half-precision files to those in float32, for ``score --precision fp16``.
            providers: where the runtimes come from.
            progress: told about each network that was exported or checked.

        Raises:
            InputError: the network cannot be exported, or the checkpoint does not fit it.
            IntegrityError: a runtime does not compute with the new files what PyTorch computes.
            MissingPluginError: PyTorch, its exporter, or a runtime to check with is not installed.
        """
        missing = [name for name in self._NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingPluginError(
                f"export to ONNX needs {', '.join(missing)}: pip install 'innereye-onnx[cpu,export]'"
            )
        from innereye_onnx.exporting import export_model

        return export_model(model, folder, precision, providers, progress)
