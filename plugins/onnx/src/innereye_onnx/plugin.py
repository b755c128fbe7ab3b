"""Hook implementations of the ONNX plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from innereye_core.contract import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from innereye_core.model import ToolboxSource
    from innereye_onnx.providers import OnnxExporter, OnnxRuntime


@hookimpl
def innereye_exporters() -> Sequence[type[OnnxExporter]]:
    """``innereye export onnx``."""
    from innereye_onnx.providers import OnnxExporter

    return [OnnxExporter]


@hookimpl
def innereye_runtimes() -> Sequence[type[OnnxRuntime]]:
    """ONNX Runtime."""
    from innereye_onnx.providers import OnnxRuntime

    return [OnnxRuntime]


@hookimpl
def innereye_toolbox_sources() -> Sequence[ToolboxSource]:
    """This package, with which an exported model runs without PyTorch."""
    from pathlib import Path

    from innereye_core.model import ToolboxSource
    from innereye_onnx import __version__

    return [
        ToolboxSource(
            section="ML",
            import_name="innereye_onnx",
            folder=Path(__file__).parent,
            distribution="innereye-onnx",
            version=__version__,
            plugin_name="onnx",
            plugin_module="innereye_onnx.plugin",
            needed_to_score=False,
        )
    ]
