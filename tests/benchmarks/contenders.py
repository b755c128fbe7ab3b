"""Who is compared: our runtimes and the peers, and why one that is not there is not."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Contender:
    """One way to segment a volume."""

    name: str
    module: str
    """Of this package: what its process runs."""
    requires: str
    """The import package that must be installed."""
    install: str
    """What installs it."""
    runtime: str = ""
    """Name of our runtime; empty for a peer."""
    exported: bool = False
    """Whether it needs a package that was exported to ONNX."""
    precision: str = "fp32"
    """What our runtime computes in."""

    @property
    def ours(self) -> bool:
        """Whether it is one of our runtimes."""
        return bool(self.runtime)

    def missing(self) -> str | None:
        """Why it cannot take part, or None."""
        if importlib.util.find_spec(self.requires) is not None:
            return None
        return f"{self.requires} is not installed; pip install {self.install}"


TORCH = Contender("torch", "ours", "innereye_segmentation", "./plugins/segmentation", runtime="torch")
ONNX = Contender("onnx", "ours", "innereye_onnx", "'./plugins/onnx[cpu]'", runtime="onnx", exported=True)
OPENVINO = Contender("openvino", "ours", "innereye_openvino", "./plugins/openvino", runtime="openvino", exported=True)
OPENVINO_BF16 = Contender(
    "openvino bf16",
    "ours",
    "innereye_openvino",
    "./plugins/openvino",
    runtime="openvino",
    exported=True,
    precision="bf16",
)
OURS = (TORCH, ONNX, OPENVINO, OPENVINO_BF16)

MONAI = Contender("MONAI", "peers.monai_windows", "monai", "monai")
NNUNET = Contender("nnU-Net", "peers.nnunet", "nnunetv2", "nnunetv2")
INNEREYE = Contender("InnerEye", "peers.innereye_torchio", "torchio", "torchio")
