"""What this plugin offers, as a light class: openvino is imported when a method needs it, not before."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

from innereye_core.errors import InputError, UsageError

if TYPE_CHECKING:
    from innereye_core.contract.providers import Device, Network
    from innereye_core.model import ModelFiles


_SPEEDS = {"fp32": 250, "bf16": 600}
"""In percent of eager PyTorch, by precision. On two CPU cores with AVX-512 it took 0.29 to 0.43 of eager PyTorch's time
in float32, and 0.17 in bfloat16 (0.10 with AMX); the torch runtime took 0.64, ONNX Runtime 0.75 to 1.03."""


class OpenVinoRuntime:
    """Evaluates exported networks with OpenVINO, on the CPU."""

    name = "openvino"
    precisions = tuple(_SPEEDS)

    def rank(self, model: ModelFiles, device: Device, precision: str = "fp32") -> int | None:
        """Speed in percent of eager PyTorch; None where the package has no ONNX file, or this is no CPU with bf16."""
        if device != "cpu" or importlib.util.find_spec("openvino") is None:
            return None
        from innereye_core.exported_networks import find_exported

        if precision not in _SPEEDS or find_exported(model, self.name, precision) is None:
            return None
        if precision == "bf16":
            from innereye_openvino.compiled import has_bfloat16

            if not has_bfloat16():
                return None
        return _SPEEDS[precision]

    def load(self, model: ModelFiles, device: Device, precision: str = "fp32") -> Sequence[Network]:
        """Load one network per checkpoint.

        Args:
            model: of a package that ``innereye export onnx`` has written.
            device: ``cpu``.
            precision: ``fp32``; or ``bf16``, which changes some labels.

        Raises:
            InputError: the package has no ONNX file, or OpenVINO cannot read it.
            MissingPluginError: OpenVINO is not installed, or the CPU does not compute in this precision.
            UsageError: there is no such precision.
        """
        if precision not in _SPEEDS:
            raise UsageError(f"--precision {precision}: openvino has {', '.join(_SPEEDS)}; choose one of them")
        from innereye_core.exported_networks import find_exported

        exported = find_exported(model, self.name, precision)
        if exported is None:
            raise InputError(
                f"{model.folder or model.checkpoints[0]}: has no ONNX files for its crop size; make them with "
                "'innereye export onnx MODEL --output DIR'"
            )
        from innereye_openvino.compiled import load_networks

        return load_networks(exported, device)
