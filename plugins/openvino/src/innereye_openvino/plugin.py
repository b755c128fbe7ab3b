"""Hook implementations of the OpenVINO plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from innereye_core.contract import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from innereye_core.model import ToolboxSource
    from innereye_openvino.providers import OpenVinoRuntime


@hookimpl
def innereye_runtimes() -> Sequence[type[OpenVinoRuntime]]:
    """OpenVINO."""
    from innereye_openvino.providers import OpenVinoRuntime

    return [OpenVinoRuntime]


@hookimpl
def innereye_toolbox_sources() -> Sequence[ToolboxSource]:
    """This package, with which an exported model runs without PyTorch."""
    from pathlib import Path

    from innereye_core.model import ToolboxSource
    from innereye_openvino import __version__

    return [
        ToolboxSource(
            section="ML",
            import_name="innereye_openvino",
            folder=Path(__file__).parent,
            distribution="innereye-openvino",
            version=__version__,
            plugin_name="openvino",
            plugin_module="innereye_openvino.plugin",
            needed_to_score=False,
        )
    ]
