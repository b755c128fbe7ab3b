"""A picture of an evaluation: the Dice of every subject per structure, as box plots, in a PNG file."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from innereye_imaging.evaluating import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0b7a75", "#d98e04")
_INCHES_PER_BOX, _LEAST_INCHES, _MOST_INCHES, _HEIGHT_INCHES = 0.55, 5.0, 60.0, 5.0
_DPI = 120
_MOST_LEVEL_NAMES = 3
_BOX_WIDTH, _GROUP_WIDTH = 0.8, 0.8
"""As fractions of the space of a box, and of a structure."""


def box_plot(evaluations: Sequence[tuple[str, Evaluation]]) -> bytes:
    """Draw the Dice per structure, the boxes of several models side by side.

    A box goes from the lower to the upper quartile, with a line at the median; whiskers go to the farthest value within
    1.5 times the height of the box; every subject is a dot. Where a structure is empty in a segmentation and its mask,
    there is no Dice, and so no dot.

    Args:
        evaluations: titles for the legend, and results; the first one's structures, in its order, are shown first.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for _, evaluation in evaluations for name in evaluation.structure_names))
    width = _INCHES_PER_BOX * len(names) * len(evaluations) + 1.5
    figure = Figure(
        figsize=(min(max(width, _LEAST_INCHES), _MOST_INCHES), _HEIGHT_INCHES), dpi=_DPI, layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for position, (title, evaluation) in enumerate(evaluations):
        shift = _GROUP_WIDTH * ((position + 0.5) / len(evaluations) - 0.5)
        _draw(axes, evaluation, names, shift, _GROUP_WIDTH / len(evaluations), _COLOURS[position], title)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylim(-0.02, 1.02)
    slanted: dict[str, Any] = {"rotation": 45, "ha": "right"} if len(names) > _MOST_LEVEL_NAMES else {}
    axes.set_xticks(range(len(names)), names, **slanted)
    axes.set_ylabel("Dice")
    axes.grid(axis="y", linewidth=0.5, alpha=0.5)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _draw(
    axes: Axes, evaluation: Evaluation, names: Sequence[str], shift: float, width: float, colour: str, title: str
) -> None:
    """Draw the boxes and dots of one model."""
    for i, name in enumerate(names):
        if name not in evaluation.structure_names:
            continue
        values = [subject.structures[name].dice for subject in evaluation.subjects]
        values = [value for value in values if not math.isnan(value)]
        if not values:
            continue
        drawn = axes.boxplot(
            [values],
            positions=[i + shift],
            widths=_BOX_WIDTH * width,
            showfliers=False,
            patch_artist=True,
            manage_ticks=False,
        )
        for box in drawn["boxes"]:
            box.set(facecolor=colour, edgecolor=colour, alpha=0.35)
        for part in ("whiskers", "caps", "medians"):
            for line in drawn[part]:
                line.set(color=colour)
        axes.plot([i + shift] * len(values), values, ".", color=colour, markersize=5, alpha=0.7)
    axes.plot([], [], "s", color=colour, alpha=0.6, label=title)
