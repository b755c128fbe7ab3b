"""Hook implementations of the toy toolbox."""

from __future__ import annotations

from pathlib import Path

from innereye_core import hookimpl


@hookimpl
def innereye_checkpoint_formats():
    from toy_innereye.checkpoints import NumberedCheckpoints, StoredEpochCheckpoints

    return [NumberedCheckpoints, StoredEpochCheckpoints]


@hookimpl
def innereye_evaluators():
    from toy_innereye.runtime import ToyEvaluator

    return [ToyEvaluator]


@hookimpl
def innereye_runtimes():
    from toy_innereye.runtime import ToyRuntime

    return [ToyRuntime]


@hookimpl
def innereye_scorers():
    from toy_innereye.scorer import ToyScorer

    return [ToyScorer]


@hookimpl
def innereye_toolbox_sources():
    from innereye_core.model import ToolboxSource

    return [
        ToolboxSource(
            section="Plugins",
            import_name="toy_innereye",
            folder=Path(__file__).parent,
            distribution="toy-innereye",
            version="1.0",
            plugin_name="toy",
            plugin_module="toy_innereye.plugin",
        )
    ]
