"""One patient's images, checked, and brought to the orientation and spacing that the network was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from innereye_core.config import InputConfig, ModelConfig
from innereye_core.errors import InputError
from innereye_core.model import Check
from innereye_imaging.formats import read_image
from innereye_imaging.geometry import (
    Grid,
    Image,
    SpacingXYZ,
    Voxels,
    reorient,
    resample,
    resampled_grid,
    restore_axes,
)
from innereye_imaging.normalization import IntensityMap, fit_intensity_map

if TYPE_CHECKING:
    from innereye_core.contract.providers import Providers

_HEADER_PRECISION_MM = 1e-5
"""NIfTI stores voxel sizes in single precision."""

_LARGEST_BYTE = 255


@dataclass(frozen=True, eq=False)
class Study:
    """One patient's channels on the grid that the network works on, with the way back to the input's own grid."""

    channels: tuple[Voxels, ...]
    """(z, y, x) each: as stored, or float32 where they were resampled."""
    intensity_maps: tuple[IntensityMap, ...]
    """Normalisation of each channel."""
    working_grid: Grid
    """Where the voxels of ``channels`` lie."""
    oriented_grid: Grid
    """The input grid with its axes in the network's orientation; the working grid, unless the study was resampled."""
    input_grid: Grid
    """Where the voxels lie in the files."""
    orientation_known: bool
    """False where the files do not say how their axes lie in the patient."""
    checks: tuple[Check, ...]

    def labels_on_input_grid(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring labels (z, y, x) from the working grid to the input's, by nearest neighbour where it was resampled."""
        return self._on_input_grid(labels, order=0, dtype=np.uint8)

    def posteriors_on_input_grid(self, posteriors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring posteriors (class, z, y, x) to the input's grid, linearly where it was resampled."""
        if self.working_grid is self.oriented_grid:
            return self._on_input_grid(posteriors, order=1, dtype=np.float32)
        return np.stack([self._on_input_grid(posterior, order=1, dtype=np.float32) for posterior in posteriors])

    def _on_input_grid(self, voxels: Voxels, *, order: int, dtype: Any) -> Voxels:
        if self.working_grid is not self.oriented_grid:
            voxels = resample(voxels, self.working_grid, self.oriented_grid, order=order, dtype=dtype)
        return np.ascontiguousarray(restore_axes(voxels, self.oriented_grid.axis_codes, self.input_grid.axis_codes))


def prepare_study(images: Sequence[Path], config: ModelConfig, providers: Providers) -> Study:
    """Read and check the channels of one patient, and find their normalisation from the whole images, once.

    Args:
        images: one file per image channel, in the order of the config.
        config: what the network was trained on.
        providers: where image formats come from.

    Raises:
        InputError: wrong number of channels; a file cannot be read (see
            :func:`innereye_imaging.formats.read_image`); NaN or infinite values; a constant image; a CT that is not in
            Hounsfield units; channels on different grids; an unknown orientation where the config names one; a spacing
            other than the config's where the config does not say ``resample``.
    """
    check_number_of_images(len(images), config)
    stored = [read_image(path, providers.image_formats()) for path in images]
    for path, image in zip(images, stored, strict=True):
        _check_values(path, image.voxels, config.input)
    _check_same_grid(images, stored)
    first, grid = images[0], stored[0].grid
    orientation_known = all(image.orientation_known for image in stored)
    checks = [
        Check("channels", "passed", f"{len(images)} of {len(images)}: {', '.join(config.image_channels)}, on one grid"),
        Check(
            "values",
            "passed",
            "finite, not constant" + (", in Hounsfield units" if config.input.modality == "ct" else ""),
        ),
        _check_orientation(first, grid, orientation_known, config.input),
    ]
    if config.input.orientation is not None:
        stored = [reorient(image, config.input.orientation) for image in stored]
    oriented_grid = working_grid = stored[0].grid
    channels = [image.voxels for image in stored]
    spacing_check = _check_spacing(first, oriented_grid.spacing_xyz_mm, config.input)
    if spacing_check.outcome == "repaired" and config.input.spacing_xyz_mm is not None:
        working_grid = resampled_grid(oriented_grid, config.input.spacing_xyz_mm)
        channels = [resample(voxels, oriented_grid, working_grid, order=1, dtype=np.float32) for voxels in channels]
    return Study(
        channels=tuple(channels),
        intensity_maps=tuple(
            fit_intensity_map(config.normalization, voxels, channel, str(path))
            for channel, (voxels, path) in enumerate(zip(channels, images, strict=True))
        ),
        working_grid=working_grid,
        oriented_grid=oriented_grid,
        input_grid=grid,
        orientation_known=orientation_known,
        checks=(*checks, spacing_check),
    )


def check_number_of_images(given: int, config: ModelConfig) -> None:
    """Raise InputError unless there is one image per channel."""
    if given != len(config.image_channels):
        raise InputError(
            f"{given} image(s) given, but {config.model_name} takes {len(config.image_channels)}, in this order: "
            f"{', '.join(config.image_channels)}"
        )


def read_mask(path: Path, study: Study, providers: Providers) -> NDArray[np.bool_]:
    """Read the mask of one structure: (z, y, x) on the study's input grid, True where the file is not 0.

    Raises:
        InputError: the file cannot be read, lies on another grid than the study's images (both are named), or holds
            more than one value besides 0.
    """
    image = read_image(path, providers.image_formats())
    if not study.input_grid.matches(image.grid):
        raise InputError(
            f"Mask {path} has {image.grid}, but the image it belongs to has {study.input_grid}; draw it on that image"
        )
    mask: NDArray[np.bool_] = image.voxels != 0
    values = image.voxels[mask]
    if values.size and not (values == values[0]).all():
        raise InputError(f"Mask {path} holds several values besides 0; a mask of one structure has one, usually 1")
    return mask


def _check_values(path: Path, voxels: Voxels, expected: InputConfig) -> None:
    if voxels.dtype.kind == "f":
        invalid = voxels.size - int(np.count_nonzero(np.isfinite(voxels)))
        if invalid:
            raise InputError(f"{path}: {invalid} voxels are NaN or infinite; repair the image")
    lowest, highest = voxels.min(), voxels.max()
    if lowest == highest:
        raise InputError(f"{path}: every voxel is {lowest}; an image with content is needed")
    if expected.modality == "ct" and lowest >= 0 and highest <= _LARGEST_BYTE:
        raise InputError(
            f"{path}: values from {lowest} to {highest} are no Hounsfield units, but a CT is expected; give the CT as "
            "it was before it was scaled"
        )


def _check_same_grid(paths: Sequence[Path], images: Sequence[Image]) -> None:
    for path, image in zip(paths[1:], images[1:], strict=True):
        if not images[0].grid.matches(image.grid):
            raise InputError(
                f"{path} has {image.grid}, but {paths[0]} has {images[0].grid}; resample the channels to one grid first"
            )


def _check_orientation(path: Path, grid: Grid, known: bool, expected: InputConfig) -> Check:
    if expected.orientation is None:
        if known:
            return Check("orientation", "unchecked", f"{grid.axis_codes} as stored; the model names none")
        return Check(
            "orientation",
            "warning",
            "the file does not say how its axes lie in the patient; the model names none either",
        )
    if not known:
        raise InputError(
            f"{path}: does not say how its axes lie in the patient (no sform, qform, space or direction), but the "
            f"model needs {expected.orientation}; write the orientation into the file"
        )
    if grid.axis_codes == expected.orientation:
        return Check("orientation", "passed", grid.axis_codes)
    return Check(
        "orientation",
        "repaired",
        f"turned from {grid.axis_codes} to {expected.orientation} for the network, the result turned back",
    )


def _check_spacing(path: Path, spacing: SpacingXYZ, expected: InputConfig) -> Check:
    found = _millimetres(spacing)
    if expected.spacing_xyz_mm is None:
        return Check("spacing", "unchecked", f"{found}; the model names none")
    wanted = _millimetres(expected.spacing_xyz_mm)
    largest = max(abs(a - b) for a, b in zip(spacing, expected.spacing_xyz_mm, strict=True))
    if largest <= expected.spacing_tolerance_mm + _HEADER_PRECISION_MM:
        return Check("spacing", "passed", f"{found}, expected {wanted}")
    if expected.on_mismatch == "resample":
        return Check(
            "spacing", "repaired", f"resampled from {found} to {wanted} for the network, the result resampled back"
        )
    raise InputError(
        f"Input image has spacing {found} but expected {wanted} (x, y, z; tolerance "
        f"{expected.spacing_tolerance_mm:g} mm): {path}; resample it, or set input.on_mismatch to resample"
    )


def _millimetres(spacing: SpacingXYZ) -> str:
    return f"({', '.join(f'{value:.5g}' for value in spacing)}) mm"
