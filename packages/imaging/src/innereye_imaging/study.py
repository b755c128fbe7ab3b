"""One patient's images, checked, and brought to the orientation and spacing that the network was trained on."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from innereye_core.config import ModelConfig
from innereye_core.errors import InputError
from innereye_core.model import Check
from innereye_imaging.formats import read_image
from innereye_imaging.geometry import (
    Grid,
    SpacingXYZ,
    Voxels,
    reorient,
    resample,
    resampled_grid,
    restore_axes,
)
from innereye_imaging.input_checks import (
    check_channels,
    check_field_of_view,
    check_intensities,
    check_number_of_images,
    check_orientation,
    check_precision,
    check_remarks,
    check_spacing,
    check_values,
)
from innereye_imaging.normalization import IntensityMap, fit_intensity_map

if TYPE_CHECKING:
    from innereye_core.contract.providers import Providers

__all__ = ["Study", "check_number_of_images", "prepare_study", "read_mask"]

_logger = logging.getLogger(__name__)

_MOST_RESAMPLED_VOXELS = 2**31
"""Eight gigabytes per channel: a wrong voxel size in a header is likelier than such an image."""


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
    orientation: str | None = None
    """What the axes of ``oriented_grid`` were turned to; None: they are as stored."""
    mask: NDArray[np.bool_] | None = None
    """(z, y, x) on the working grid, False where only background may be; None: everything may be anywhere."""
    mask_on_input_grid: NDArray[np.bool_] | None = None
    """The same mask as the file has it."""

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
        if self.orientation is not None:
            voxels = restore_axes(voxels, self.orientation, self.input_grid.axis_codes)
        return np.ascontiguousarray(voxels)


def prepare_study(
    images: Sequence[Path], config: ModelConfig, providers: Providers, *, mask: Path | None = None
) -> Study:
    """Read and check the channels of one patient, and find their normalisation from the whole images, once.

    Args:
        images: one file per image channel, in the order of the config.
        config: what the network was trained on.
        providers: where image formats come from.
        mask: an image on the same grid; where it is 0, only background may be found. As in InnerEye's scoring it does
            not change what the network sees: normalisation is found from the whole image.

    Raises:
        InputError: wrong number of channels; a file cannot be read (see
            :func:`innereye_imaging.formats.read_image`); NaN or infinite values; a constant image; a CT that is not in
            Hounsfield units; channels or a mask on different grids; a mask that is empty or has several values; an
            unknown orientation where the config names one; a spacing other than the config's where the config does not
            say ``resample``; an image that is smaller than what the config says the network needs.
    """
    check_number_of_images(len(images), config)
    stored = [read_image(path, providers.image_formats()) for path in images]
    first, grid = images[0], stored[0].grid
    orientation_known = all(image.orientation_known for image in stored)
    checks = [
        check_channels(images, stored, config),
        check_remarks("dimensions", "3-D", images, stored),
        check_remarks("header", "consistent", images, stored),
        check_values(images, stored),
        check_intensities(images, stored, config.input),
        check_precision(images, stored),
        check_orientation(first, grid, orientation_known, config.input),
    ]
    region = None if mask is None else _read_binary_image(mask, grid, providers)
    codes = config.input.orientation
    if codes is not None:
        stored = [reorient(image, codes) for image in stored]
    oriented_grid = working_grid = stored[0].grid
    channels = [image.voxels for image in stored]
    working_mask = region
    if region is not None and codes is not None:
        # Contiguous, because torch takes no array that counts backwards.
        working_mask = np.ascontiguousarray(restore_axes(region, grid.axis_codes, codes))
    checks.append(check_spacing(first, oriented_grid.spacing_xyz_mm, config.input))
    if checks[-1].outcome == "repaired" and config.input.spacing_xyz_mm is not None:
        working_grid = _finer_or_coarser_grid(first, oriented_grid, config.input.spacing_xyz_mm)
        channels = [resample(voxels, oriented_grid, working_grid, order=1, dtype=np.float32) for voxels in channels]
        if working_mask is not None:
            resampled = resample(working_mask.astype(np.uint8), oriented_grid, working_grid, order=0, dtype=np.uint8)
            working_mask = resampled != 0
    checks.append(check_field_of_view(working_grid.size_zyx, config))
    if mask is not None and working_mask is not None:
        checks.append(_check_mask(mask, working_mask))
    for check in checks:
        if check.outcome in ("repaired", "warning"):
            _logger.info("%s: %s: %s", check.outcome, check.name, check.detail)
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
        checks=tuple(checks),
        orientation=codes,
        mask=working_mask,
        mask_on_input_grid=region,
    )


def read_mask(path: Path, study: Study, providers: Providers) -> NDArray[np.bool_]:
    """Read the mask of one structure: (z, y, x) on the study's input grid, True where the file is not 0.

    Raises:
        InputError: the file cannot be read, lies on another grid than the study's images (both are named), or holds
            more than one value besides 0.
    """
    return _read_binary_image(path, study.input_grid, providers)


def _read_binary_image(path: Path, grid: Grid, providers: Providers) -> NDArray[np.bool_]:
    image = read_image(path, providers.image_formats())
    if not grid.matches(image.grid):
        raise InputError(f"Mask {path} has {image.grid}, but the image it belongs to has {grid}; draw it on that image")
    mask: NDArray[np.bool_] = image.voxels != 0
    values = image.voxels[mask]
    if values.size and not (values == values[0]).all():
        raise InputError(f"Mask {path} holds several values besides 0; a mask has one, usually 1")
    return mask


def _check_mask(path: Path, mask: NDArray[np.bool_]) -> Check:
    inside = int(np.count_nonzero(mask))
    if not inside:
        raise InputError(f"Mask {path} has no voxel that is not 0, so that nothing could be found; draw it")
    return Check("mask", "passed", f"{path.name}: {inside} of {mask.size} voxels inside, the rest is background")


def _finer_or_coarser_grid(path: Path, grid: Grid, spacing_xyz_mm: SpacingXYZ) -> Grid:
    found = resampled_grid(grid, spacing_xyz_mm)
    if math.prod(found.size_zyx) > _MOST_RESAMPLED_VOXELS:
        raise InputError(f"{path}: {grid} would become {found}; is its voxel size right? crop or resample it first")
    return found
