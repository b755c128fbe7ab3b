"""Images with their place in space: grids, orientation, and the way from one grid to another and back.

Arrays are (z, y, x); leading axes, such as classes, may come before. Affines are 4×4 and lead from voxel indices
(x, y, z) to RAS+ world coordinates in mm, as in NIfTI. Orientation codes such as ``LPS`` name where the voxel axes
x, y, z point to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from innereye_core.errors import InputError
from innereye_core.model import Check, SizeZYX

Voxels: TypeAlias = NDArray[Any]
SpacingXYZ: TypeAlias = tuple[float, float, float]

_LARGEST_COSINE_BETWEEN_AXES = 1e-3
"""0.06 degrees: far above what rounding of stored affines makes, far below a gantry tilt."""

_SAME_GRID_TOLERANCE_VOXELS = 0.1
"""Formats round affines differently; a tenth of a voxel moves no label."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid of voxels in space."""

    size_zyx: SizeZYX
    affine: NDArray[np.float64]
    """4×4, voxel indices (x, y, z) → RAS+ mm."""

    @property
    def spacing_xyz_mm(self) -> SpacingXYZ:
        """Distance between neighbouring voxels along x, y, z, in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm³; voxels have right angles, others are refused when an image is read."""
        return math.prod(self.spacing_xyz_mm)

    @property
    def axis_codes(self) -> str:
        """Where the voxel axes x, y, z point to; see :func:`axis_codes`."""
        return axis_codes(self.affine)

    @property
    def obliqueness_degrees(self) -> float:
        """The largest angle between a voxel axis and the nearest axis of the patient."""
        cosines = np.abs(self.affine[:3, :3]).max(axis=0) / self.spacing_xyz_mm
        return float(np.degrees(np.arccos(np.minimum(cosines, 1)).max()))

    def matches(self, other: Grid) -> bool:
        """Whether both have the same voxels in the same places, within a tenth of a voxel at every corner."""
        if self.size_zyx != other.size_zyx:
            return False
        corners = self._corners()
        in_own_voxels = np.linalg.solve(self.affine, other.affine @ corners)
        return bool(np.abs(in_own_voxels - corners).max() <= _SAME_GRID_TOLERANCE_VOXELS)

    def largest_distance_mm(self, other: Grid) -> float:
        """How far apart, at most, both place the same voxel; they have the same size."""
        return float(np.linalg.norm(((self.affine - other.affine) @ self._corners())[:3], axis=0).max())

    def _corners(self) -> NDArray[np.float64]:
        """Indices (x, y, z, 1) of the corner voxels, one per column."""
        return np.array([(x, y, z, 1) for z, y, x in product(*((0, size - 1) for size in self.size_zyx))], float).T

    def __str__(self) -> str:
        x, y, z = reversed(self.size_zyx)
        spacing = " × ".join(f"{value:.4g}" for value in self.spacing_xyz_mm)
        origin = ", ".join(f"{value:.4g}" for value in self.affine[:3, 3])
        return f"{x} × {y} × {z} voxels of {spacing} mm, {self.axis_codes}, first voxel at ({origin}) mm"


@dataclass(frozen=True, eq=False)
class Image:
    """Voxels with their place in space."""

    voxels: Voxels
    """(z, y, x), in the type that the file stores; (class, z, y, x) for posteriors."""
    affine: NDArray[np.float64]
    """4×4, voxel indices (x, y, z) → RAS+ mm."""
    orientation_known: bool = True
    """False where the file does not say how its axes lie in the patient, so that the affine is a convention only."""
    remarks: tuple[Check, ...] = ()
    """What its format repaired or doubts: checks named ``dimensions`` or ``header``."""

    @property
    def grid(self) -> Grid:
        """Where the voxels lie."""
        z, y, x = self.voxels.shape[-3:]
        return Grid((z, y, x), self.affine)


def axis_codes(affine: NDArray[np.float64]) -> str:
    """Where the voxel axes x, y, z of an affine point to, such as ``LPS``; the nearest where they are oblique."""
    return "".join(_orientations().aff2axcodes(affine))


def check_affine(affine: NDArray[np.float64], source: str) -> None:
    """Refuse an affine that is not a rotation, reflection and scaling plus a shift.

    Args:
        affine: what an image file says.
        source: how the message names the image.

    Raises:
        InputError: it is not 4×4, not finite, singular, or sheared (as a tilted gantry makes it).
    """
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise InputError(f"{source}: the affine is not a 4×4 matrix of finite numbers; repair the header")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() <= 0:
        raise InputError(f"{source}: the affine is singular (a voxel size is 0); repair the header")
    axes = affine[:3, :3] / lengths
    cosine = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if abs(np.linalg.det(axes)) < 1e-6:
        raise InputError(f"{source}: the affine is singular (two voxel axes are parallel); repair the header")
    if cosine > _LARGEST_COSINE_BETWEEN_AXES:
        degrees = np.degrees(np.arcsin(cosine))
        raise InputError(
            f"{source}: the affine is sheared by {degrees:.2f}°; resample the image to a rectangular grid first"
        )


def reorient(image: Image, codes: str) -> Image:
    """Permute and flip voxel axes so that x, y, z point to ``codes``; no value changes, nothing is copied."""
    change = _axis_change(image.grid.axis_codes, codes)
    affine = image.affine @ _orientations().inv_ornt_aff(change, image.grid.size_zyx[::-1])
    return replace(image, voxels=_apply_axis_change(image.voxels, change), affine=affine)


def restore_axes(voxels: Voxels, current_codes: str, original_codes: str) -> Voxels:
    """Undo :func:`reorient` on an array (…, z, y, x), exactly: a view of the same values."""
    return _apply_axis_change(voxels, _axis_change(current_codes, original_codes))


def _axis_change(current_codes: str, wanted_codes: str) -> NDArray[np.float64]:
    library = _orientations()
    change: NDArray[np.float64] = library.ornt_transform(
        library.axcodes2ornt(current_codes), library.axcodes2ornt(wanted_codes)
    )
    return change


def _apply_axis_change(voxels: Voxels, change: NDArray[np.float64]) -> Voxels:
    changed: Voxels = _orientations().apply_orientation(voxels.T, change)  # the library wants x, y, z first
    return changed.T


def _orientations() -> Any:
    """The part of nibabel that knows orientations; without type information."""
    from nibabel import orientations

    return orientations


def resampled_grid(grid: Grid, spacing_xyz_mm: SpacingXYZ) -> Grid:
    """The grid of another spacing that covers the same box (outer edges of voxels), to the nearest whole voxel."""
    ratio_xyz = np.asarray(spacing_xyz_mm) / np.asarray(grid.spacing_xyz_mm)
    size_xyz = np.maximum(1, np.rint(np.asarray(grid.size_zyx[::-1]) / ratio_xyz)).astype(int)
    step = np.eye(4)
    step[:3, :3] = np.diag(ratio_xyz)
    step[:3, 3] = (ratio_xyz - 1) / 2
    x, y, z = size_xyz.tolist()
    return Grid((z, y, x), grid.affine @ step)


def resample(voxels: Voxels, source: Grid, target: Grid, *, order: int, dtype: Any) -> Voxels:
    """Interpolate from one grid to another that covers the same box; beyond the border the nearest voxel continues.

    What happens halfway between two voxels follows from the voxel sizes alone, so that it is the same wherever the box
    lies and however the file stores its axes.

    Args:
        voxels: (z, y, x) on ``source``.
        source: the grid of ``voxels``.
        target: what :func:`resampled_grid` made of ``source``, or the other way round.
        order: 0 nearest neighbour, 1 linear.
        dtype: type of the result.

    Returns:
        (z, y, x) on ``target``.
    """
    from scipy.ndimage import affine_transform

    ratio_zyx = np.asarray(target.spacing_xyz_mm[::-1]) / np.asarray(source.spacing_xyz_mm[::-1])
    resampled: Voxels = affine_transform(
        voxels,
        ratio_zyx,
        offset=(ratio_zyx - 1) / 2,
        output_shape=target.size_zyx,
        output=dtype,
        order=order,
        mode="nearest",
    )
    return resampled
