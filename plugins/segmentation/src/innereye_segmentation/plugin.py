"""Hook implementations of the segmentation plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from innereye_core.contract import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from innereye_core.contract.providers import Providers
    from innereye_core.model import PackagePlan, PlannedFile, ToolboxSource
    from innereye_segmentation.providers import NetworkEvaluator, TorchCheckpointFormat, TorchRuntime


@hookimpl
def innereye_checkpoint_formats() -> Sequence[TorchCheckpointFormat]:
    """InnerEye's checkpoints, Lightning's, bare state dicts, and safetensors."""
    from innereye_segmentation.providers import CHECKPOINT_FORMATS

    return CHECKPOINT_FORMATS


@hookimpl
def innereye_evaluators() -> Sequence[type[NetworkEvaluator]]:
    """The network on the validation images."""
    from innereye_segmentation.providers import NetworkEvaluator

    return [NetworkEvaluator]


@hookimpl
def innereye_runtimes() -> Sequence[type[TorchRuntime]]:
    """PyTorch."""
    from innereye_segmentation.providers import TorchRuntime

    return [TorchRuntime]


@hookimpl
def innereye_toolbox_sources() -> Sequence[ToolboxSource]:
    """This package, which a packaged model needs to build and run its network."""
    from pathlib import Path

    from innereye_core.model import ToolboxSource
    from innereye_segmentation import __version__

    return [
        ToolboxSource(
            section="ML",
            import_name="innereye_segmentation",
            folder=Path(__file__).parent,
            distribution="innereye-segmentation",
            version=__version__,
            plugin_name="segmentation",
            plugin_module="innereye_segmentation.plugin",
        )
    ]


@hookimpl
def innereye_package_files(plan: PackagePlan, providers: Providers) -> Sequence[PlannedFile]:
    """What the masks of the validation set are like, so that scoring can name what is unlike them."""
    from innereye_segmentation.validation_ranges import validation_range_files

    return validation_range_files(plan, providers.image_formats())
