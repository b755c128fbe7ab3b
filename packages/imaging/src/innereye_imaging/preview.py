"""A picture to look a segmentation over: three planes with the structures drawn on the image, as a PNG file."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from innereye_core.config import CTWindow, ModelConfig
from innereye_core.errors import InputError
from innereye_imaging.geometry import Image, reorient
from innereye_imaging.statistics import structure_volumes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DISPLAY_AXES = "LAS"
"""x to the patient's left: seen from the feet, as radiologists look at axial slices."""

_SAGITTAL = 2
_PLANES = (
    # title, axis that is cut, letters at the left, right, bottom and top edge
    ("Axial", 0, "RLPA"),
    ("Coronal", 1, "RLIS"),
    ("Sagittal", _SAGITTAL, "APIS"),
)

_DISPLAYED_PERCENTILES = (1, 99.5)
_VALUES_FOR_PERCENTILES = 1_000_000
_BACKGROUND, _FOREGROUND, _FAINT = "#101010", "#f0f0f0", "#909090"
_SEARCHED = 0.05
"""How far from the centre a fuller plane is looked for, as a fraction of the image."""
_FILL_OPACITY, _LEGEND_OPACITY = 0.3, 0.5
_WIDTH_INCHES, _DPI = 12.0, 150
_LOWEST_INCHES, _HIGHEST_INCHES = 1.0, 12.0
"""Of the planes: a long thin image makes no endless picture."""
_TITLE_INCHES, _LEGEND_ROW_INCHES = 0.65, 0.25
_LEGEND_COLUMNS, _LEGEND_CHARACTERS, _LEGEND_KEY_CHARACTERS, _LONGEST_TITLE = 5, 125, 8, 60
"""How many columns at most, how many characters fit into the width, how many of them a colour takes."""


@dataclass(frozen=True, eq=False)
class _Scene:
    """What is drawn, with its axes turned for display."""

    voxels: NDArray[Any]
    labels: NDArray[np.uint8]
    voxel_zyx_mm: tuple[float, float, float]
    centre_zyx: tuple[int, int, int]
    """The voxel that the three planes run through."""
    window: tuple[float, float]
    """The values shown black and white."""
    colours: list[tuple[float, float, float]]
    """Of structures 1, 2, …; red, green, blue in [0, 1]."""


def write_preview(path: Path, image: Image, labels: NDArray[np.uint8], config: ModelConfig) -> None:
    """Write what :func:`draw_preview` draws; the file is replaced if it exists.

    Raises:
        InputError: image and labels differ in shape.
        OSError: the disk is full or not writable.
    """
    path.write_bytes(draw_preview(image, labels, config))


def draw_preview(image: Image, labels: NDArray[np.uint8], config: ModelConfig) -> bytes:
    """Draw the axial, coronal and sagittal plane through the middle of the structures.

    Each plane is, of those that show most structures and are near the structures' common centre, the one with most
    labelled voxels; without any structure it is the middle of the image. The image is windowed as the network's CT
    window, else between percentiles.

    Args:
        image: (z, y, x) with its affine.
        labels: (z, y, x) on the same grid; label i is structure i.
        config: names and colours of the structures, and the window.

    Returns:
        A PNG file; equal input gives equal bytes.

    Raises:
        InputError: image and labels differ in shape.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    if image.voxels.shape != labels.shape:
        raise InputError(f"Image {image.voxels.shape} and labels {labels.shape} (z, y, x) differ in shape; give a pair")
    shown, shown_labels = reorient(image, _DISPLAY_AXES), reorient(Image(labels, image.affine), _DISPLAY_AXES).voxels
    scene = _Scene(
        voxels=shown.voxels,
        labels=shown_labels,
        voxel_zyx_mm=shown.grid.spacing_xyz_mm[::-1],
        centre_zyx=_centre(shown_labels),
        window=_window(image.voxels, config),
        colours=[(red / 255, green / 255, blue / 255) for red, green, blue in config.colours],
    )
    depth_mm, height_mm, width_mm = np.multiply(shown_labels.shape, scene.voxel_zyx_mm).tolist()
    widths_mm = [width_mm, width_mm, height_mm]
    titles = _legend_titles(labels, image.grid.voxel_volume_mm3, config)
    columns = _LEGEND_CHARACTERS // (max(map(len, titles)) + _LEGEND_KEY_CHARACTERS)
    columns = min(max(columns, 1), _LEGEND_COLUMNS, len(titles))
    planes_inches = np.clip(_WIDTH_INCHES * max(depth_mm, height_mm) / sum(widths_mm), _LOWEST_INCHES, _HIGHEST_INCHES)
    figure = Figure(
        figsize=(_WIDTH_INCHES, planes_inches + _TITLE_INCHES + -(-len(titles) // columns) * _LEGEND_ROW_INCHES),
        dpi=_DPI,
        facecolor=_BACKGROUND,
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    for axes, (title, cut, letters) in zip(figure.subplots(1, 3, width_ratios=widths_mm), _PLANES, strict=True):
        _draw_plane(axes, scene, cut)
        _write_edges(axes, letters)
        position = f"{title} {scene.centre_zyx[cut] + 1}/{shown_labels.shape[cut]}"
        axes.set_title(position, color=_FOREGROUND, fontsize=11)
    patches = [
        Patch(facecolor=(*colour, _LEGEND_OPACITY), edgecolor=colour, label=title)
        for colour, title in zip(scene.colours, titles, strict=True)
    ]
    figure.legend(
        handles=patches,
        loc="outside lower center",
        ncols=columns,
        labelcolor=_FOREGROUND,
        frameon=False,
        fontsize=11,
    )
    png = io.BytesIO()
    figure.savefig(png, format="png", facecolor=_BACKGROUND, metadata={"Software": None})
    return png.getvalue()


def _legend_titles(labels: NDArray[np.uint8], voxel_volume_mm3: float, config: ModelConfig) -> list[str]:
    volumes = structure_volumes(labels, voxel_volume_mm3, config.structure_names)
    titles = []
    for structure in config.structures:
        name = structure.title if len(structure.title) <= _LONGEST_TITLE else f"{structure.title[:_LONGEST_TITLE]}…"
        # The library would read formulas between dollars, and leave out what starts with an underscore.
        name = f" {name}" if name.startswith("_") else name
        titles.append(f"{name}  {_millilitres(volumes[structure.name].volume_ml)}".replace("$", r"\$"))
    return titles


def _window(voxels: NDArray[Any], config: ModelConfig) -> tuple[float, float]:
    """The values that are shown black and white."""
    if isinstance(config.normalization, CTWindow):
        half = config.normalization.window / 2
        return config.normalization.level - half, config.normalization.level + half
    every = max(1, voxels.size // _VALUES_FOR_PERCENTILES)
    low, high = np.percentile(voxels.ravel()[::every], _DISPLAYED_PERCENTILES).tolist()
    return (low, high) if low < high else (float(voxels.min()), float(voxels.max()))


def _centre(labels: NDArray[np.uint8]) -> tuple[int, int, int]:
    """The voxel (z, y, x) that the three planes run through."""
    present = [number for number in range(1, int(labels.max()) + 1) if (labels == number).any()]
    if not present:
        z, y, x = (size // 2 for size in labels.shape)
        return z, y, x
    planes = []
    for cut in range(3):
        others = tuple(axis for axis in range(3) if axis != cut)
        structures = sum((labels == number).any(axis=others).astype(int) for number in present)
        voxels = np.count_nonzero(labels, axis=others)
        centre_of_mass = float(np.average(np.arange(len(voxels)), weights=voxels))
        candidates = np.flatnonzero(structures == np.max(structures))
        distances = np.abs(candidates - centre_of_mass)
        near = candidates[distances <= distances.min() + _SEARCHED * len(voxels)]
        planes.append(int(near[np.argmax(voxels[near])]))
    z, y, x = planes
    return z, y, x


def _draw_plane(axes: Axes, scene: _Scene, cut: int) -> None:
    """Draw the plane that cuts an axis (0 z, 1 y, 2 x), in mm."""
    rows, columns = (axis for axis in range(3) if axis != cut)
    image, plane = (volume.take(scene.centre_zyx[cut], axis=cut) for volume in (scene.voxels, scene.labels))
    row_mm, column_mm = scene.voxel_zyx_mm[rows], scene.voxel_zyx_mm[columns]
    height, width = scene.labels.shape[rows], scene.labels.shape[columns]
    extent = (0.0, width * column_mm, 0.0, height * row_mm)
    black, white = scene.window
    axes.imshow(image, cmap="gray", vmin=black, vmax=white, origin="lower", extent=extent, interpolation="bilinear")
    bordered = np.pad(plane, 1)  # closes the outlines of what reaches the border of the image
    across_mm = (np.arange(width + 2) - 0.5) * column_mm
    up_mm = (np.arange(height + 2) - 0.5) * row_mm
    fill = np.zeros((height, width, 4))
    for number, colour in enumerate(scene.colours, start=1):
        if (plane == number).any():
            fill[plane == number] = (*colour, _FILL_OPACITY)
            axes.contour(across_mm, up_mm, bordered == number, levels=[0.5], colors=[colour], linewidths=1.3)
    axes.imshow(fill, origin="lower", extent=extent, interpolation="nearest")
    other_planes: dict[str, Any] = {"color": _FAINT, "linewidth": 0.5, "alpha": 0.6, "linestyle": (0, (6, 6))}
    axes.axvline((scene.centre_zyx[columns] + 0.5) * column_mm, **other_planes)
    axes.axhline((scene.centre_zyx[rows] + 0.5) * row_mm, **other_planes)
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
    if cut == _SAGITTAL:
        axes.invert_xaxis()  # the front of the body to the left
    axes.set_axis_off()


def _write_edges(axes: Axes, letters: str) -> None:
    """Write where the left, right, bottom and top edge lie in the patient."""
    from matplotlib.patheffects import withStroke

    places: list[tuple[float, float, Any, Any]] = [
        (0.02, 0.5, "left", "center"),
        (0.98, 0.5, "right", "center"),
        (0.5, 0.02, "center", "bottom"),
        (0.5, 0.98, "center", "top"),
    ]
    for letter, (across, up, horizontal, vertical) in zip(letters, places, strict=True):
        text = axes.text(across, up, letter, transform=axes.transAxes, ha=horizontal, va=vertical)
        text.set(color=_FOREGROUND, fontsize=10, path_effects=[withStroke(linewidth=2, foreground=_BACKGROUND)])


def _millilitres(volume_ml: float) -> str:
    return f"{volume_ml:.1f} ml" if volume_ml else "not found"
