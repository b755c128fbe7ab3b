"""What is checked about a patient's images before a network sees them: one function per check.

Each check passes, names what was repaired, warns, says that the model states nothing to check against, or refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from innereye_core.config import InputConfig, ModelConfig
from innereye_core.errors import InputError
from innereye_core.model import Check, NetworkGeometry, SizeZYX
from innereye_imaging.geometry import Grid, Image, SpacingXYZ, Voxels
from innereye_imaging.tiling import plan_tiling

_HEADER_PRECISION_MM = 1e-5
"""NIfTI stores voxel sizes in single precision."""

_LARGEST_BYTE = 255

_USUAL_HOUNSFIELD_UNITS = (-2048, 4095)
"""One bit more than scanners store: twelve bits reach from -1024 to 3071. Kernels and interpolation overshoot, so that
a real CT (TotalSegmentator's example) has -1207 and 3382."""

_LARGEST_ANGLE_DEGREES = 30
"""Of a voxel axis to the patient's; at 45 degrees it is no longer clear which axis is meant."""

Outcome: TypeAlias = Literal["passed", "repaired", "unchecked", "warning"]

Finding: TypeAlias = tuple[Path, Outcome, str]
"""An image, what became of it, and why."""


def check_number_of_images(given: int, config: ModelConfig) -> None:
    """Raise InputError unless there is one image per channel."""
    if given != len(config.image_channels):
        raise InputError(
            f"{given} image(s) given, but {config.model_name} takes {len(config.image_channels)}, in this order: "
            f"{', '.join(config.image_channels)}"
        )


def check_channels(paths: Sequence[Path], images: Sequence[Image], config: ModelConfig) -> Check:
    """All channels lie on one grid."""
    for path, image in zip(paths[1:], images[1:], strict=True):
        if not images[0].grid.matches(image.grid):
            raise InputError(
                f"{path} has {image.grid}, but {paths[0]} has {images[0].grid}; resample the channels to one grid first"
            )
    return Check(
        "channels", "passed", f"{len(images)} of {len(images)}: {', '.join(config.image_channels)}, on one grid"
    )


def check_remarks(name: str, passed: str, paths: Sequence[Path], images: Sequence[Image]) -> Check:
    """What the file formats had to say under this name."""
    found = [(path, remark) for path, image in zip(paths, images, strict=True) for remark in image.remarks]
    return _together(
        name, passed, [(path, remark.outcome, remark.detail) for path, remark in found if remark.name == name]
    )


def check_values(paths: Sequence[Path], images: Sequence[Image]) -> Check:
    """All values are finite, also in single precision, and no image is constant."""
    for path, image in zip(paths, images, strict=True):
        voxels = image.voxels
        if voxels.dtype.kind == "f":
            invalid = voxels.size - int(np.count_nonzero(np.isfinite(voxels)))
            if invalid:
                raise InputError(f"{path}: {invalid} voxels are NaN or infinite; repair the image")
        lowest, highest = voxels.min(), voxels.max()
        if lowest == highest:
            raise InputError(f"{path}: every voxel is {lowest}; an image with content is needed")
        if max(-float(lowest), float(highest)) > float(np.finfo(np.float32).max):
            raise InputError(f"{path}: values from {lowest:g} to {highest:g} are too large; repair the image")
    return Check("values", "passed", "finite, not constant")


def check_intensities(paths: Sequence[Path], images: Sequence[Image], expected: InputConfig) -> Check:
    """The values are what the modality has."""
    ranges = [(float(image.voxels.min()), float(image.voxels.max())) for image in images]
    doubts: list[Finding] = []
    for path, image, (lowest, highest) in zip(paths, images, ranges, strict=True):
        if expected.modality == "ct" and lowest >= 0 and highest <= _LARGEST_BYTE:
            raise InputError(
                f"{path}: values from {lowest:g} to {highest:g} are no Hounsfield units, but a CT is expected; give "
                "the CT as it was before it was scaled"
            )
        doubt = _doubt_about_intensities(image.voxels, lowest, highest, expected.modality)
        if doubt:
            doubts.append((path, "warning", f"from {lowest:g} to {highest:g}, {doubt}"))
    found = ", ".join(f"from {lowest:g} to {highest:g}" for lowest, highest in ranges)
    if expected.modality is None and not doubts:
        return Check("intensities", "unchecked", f"{found}; the model names no modality")
    return _together("intensities", f"{found}, as a {(expected.modality or '').upper()} may have", doubts)


def _doubt_about_intensities(voxels: Voxels, lowest: float, highest: float, modality: str | None) -> str | None:
    if np.count_nonzero(voxels == voxels.min()) + np.count_nonzero(voxels == voxels.max()) == voxels.size:
        return "only two values: is it a mask?"
    if modality == "ct":
        usual_lowest, usual_highest = _USUAL_HOUNSFIELD_UNITS
        if lowest >= 0:
            return "nothing below 0 HU, where air and fat are: was the rescale intercept left out?"
        if highest <= 0:
            return "nothing above 0 HU, where soft tissue is: are these Hounsfield units?"
        if lowest >= -1 and highest <= 1:
            return "hardly Hounsfield units: was the CT scaled?"
        if lowest < usual_lowest or highest > usual_highest:
            return f"outside of the usual {usual_lowest} to {usual_highest} HU"
    if modality == "mr" and lowest < 0:
        return "below 0, which MR magnitude images are not: were they normalised already?"
    return None


def check_precision(paths: Sequence[Path], images: Sequence[Image]) -> Check:
    """The network works in single precision, which not every stored type fits into."""
    cast: list[Finding] = [
        (path, "repaired", f"{image.voxels.dtype} cast to single precision for the network")
        for path, image in zip(paths, images, strict=True)
        if not np.can_cast(image.voxels.dtype, np.float32)
    ]
    stored = ", ".join(sorted({str(image.voxels.dtype) for image in images}))
    return _together("precision", f"{stored}, exact in single precision", cast)


def check_orientation(path: Path, grid: Grid, known: bool, expected: InputConfig) -> Check:
    """The voxel axes point to where the network's do, or can be turned there."""
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
    turned = grid.axis_codes != expected.orientation
    detail = grid.axis_codes
    if turned:
        detail = f"turned from {detail} to {expected.orientation} for the network, the result turned back"
    angle = grid.obliqueness_degrees
    if angle > _LARGEST_ANGLE_DEGREES:
        return Check("orientation", "warning", f"{detail}; oblique by {angle:.0f}°, these are only the nearest axes")
    return Check("orientation", "repaired" if turned else "passed", detail)


def check_spacing(path: Path, spacing: SpacingXYZ, expected: InputConfig) -> Check:
    """The voxel size is the network's; ``repaired`` says that the image must be resampled to it."""
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


def check_field_of_view(size_zyx: SizeZYX, config: ModelConfig) -> Check:
    """The image is as large as the network needs it; where the config does not say how large, that is seen later."""
    network = config.network
    size = _voxels(size_zyx)
    if not (network.size_multiple_zyx and network.minimum_size_zyx and network.output_size_zyx):
        return Check("field_of_view", "unchecked", f"{size}; the config does not say what the network needs")
    geometry = NetworkGeometry(network.size_multiple_zyx, network.minimum_size_zyx, network.output_size_zyx)
    plan = plan_tiling(size_zyx, config.inference, geometry)
    patches = f"{len(plan)} patch(es) of {_voxels(plan.crop_size_zyx)}"
    if plan.crop_size_zyx != config.inference.crop_size_zyx:
        patches += f", made smaller than {_voxels(config.inference.crop_size_zyx)} to fit the image"
    return Check("field_of_view", "passed", f"{size} (z × y × x) in {patches}")


def _together(name: str, passed: str, found: Sequence[Finding]) -> Check:
    """One check of all channels: what was found about some of them, the gravest outcome first."""
    if not found:
        return Check(name, "passed", passed)
    outcome: Outcome = "warning" if any(outcome == "warning" for _, outcome, _ in found) else "repaired"
    return Check(name, outcome, "; ".join(f"{path.name}: {detail}" for path, _, detail in found))


def _voxels(size_zyx: SizeZYX) -> str:
    return " × ".join(map(str, size_zyx))


def _millimetres(spacing: SpacingXYZ) -> str:
    return f"({', '.join(f'{value:.5g}' for value in spacing)}) mm"
