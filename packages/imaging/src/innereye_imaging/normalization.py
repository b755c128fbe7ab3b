"""Intensity normalisation: the five methods, each as one linear map found from the whole image.

Formulas and defaults are those of InnerEye-DeepLearning's photometric normalisation (without a mask, as in its
scoring), but the input is never changed and every channel of a study has its own parameters. The parameters are found
once per image; the map is then applied to each patch when it is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innereye_core.config import CTWindow, MRIWindow, NoNormalization, Normalization, SimpleNorm, TrimmedNorm
from innereye_core.errors import InputError
from innereye_imaging.geometry import Voxels

_QUARTILE_OF_STANDARD_NORMAL = 0.67448975
"""The quartiles of a normal distribution lie so many standard deviations from its mean."""


@dataclass(frozen=True)
class IntensityMap:
    """value → clip(value · scale + offset); values below ``zero_below`` are taken as 0 first."""

    scale: float = 1.0
    offset: float = 0.0
    clip: tuple[float, float] | None = None
    zero_below: float | None = None

    def apply(self, voxels: Voxels) -> NDArray[np.float64]:
        """Normalised copy of any part of the image, in double precision."""
        values = voxels.astype(np.float64)
        if self.zero_below is not None:
            values[values < self.zero_below] = 0
        values *= self.scale
        values += self.offset
        if self.clip is not None:
            np.clip(values, *self.clip, out=values)
        return values


def fit_intensity_map(normalization: Normalization, voxels: Voxels, channel: int, source: str) -> IntensityMap:
    """Find the parameters of a normalisation for one image.

    Args:
        normalization: the config's method with its settings.
        voxels: the whole image (z, y, x), finite values.
        channel: number of the image channel, from 0.
        source: how a message names the image.

    Raises:
        InputError: the method finds no range of values in this image (a nearly constant image).
    """
    match normalization:
        case NoNormalization():
            return IntensityMap()
        case CTWindow(level=level, window=window, output_range=output_range):
            return _onto(output_range, level - window / 2, level + window / 2)
    values = voxels.astype(np.float64).ravel()
    _refuse_empty_range(values.min(), values.max(), normalization.method, source)
    match normalization:
        case SimpleNorm():
            deviation = float(values.std())
            return IntensityMap(1 / deviation, -float(values.mean()) / deviation)
        case MRIWindow(tail=tail):
            return _fit_mri_window(normalization, tail[channel] if tail else 1.0, values, source)
        case TrimmedNorm():
            return _fit_trimmed_norm(normalization, values, source)


def _fit_mri_window(settings: MRIWindow, tail: float, values: NDArray[np.float64], source: str) -> IntensityMap:
    """Take what Otsu's threshold calls foreground; window: its median ± sharpen robust standard deviations."""
    from skimage import filters

    library: Any = filters
    threshold = float(library.threshold_otsu(values))  # of 256 bins, as the values are floats
    statistics = _RobustStatistics.of(values[values > threshold])
    reach = statistics.deviation * settings.sharpen
    lower = max(statistics.median - reach, threshold)
    upper = min(statistics.median + tail * reach, statistics.maximum)
    _refuse_empty_range(lower, upper, settings.method, source)
    return _onto(settings.output_range, lower, upper, zero_below=threshold)


def _fit_trimmed_norm(settings: TrimmedNorm, values: NDArray[np.float64], source: str) -> IntensityMap:
    """Take what lies strictly between two percentiles; window: its median ± sharpen robust standard deviations."""
    low, high = np.percentile(values, settings.trim_percentiles, method="midpoint").tolist()
    inside = values[(values > low) & (values < high)]
    if not inside.size:
        _refuse_empty_range(low, low, settings.method, source)
    statistics = _RobustStatistics.of(inside)
    reach = statistics.deviation * settings.sharpen
    lower = max(statistics.median - reach, statistics.minimum)
    upper = min(statistics.median + reach, statistics.maximum)
    _refuse_empty_range(lower, upper, settings.method, source)
    return _onto(settings.output_range, lower, upper)


@dataclass(frozen=True)
class _RobustStatistics:
    minimum: float
    median: float
    maximum: float
    deviation: float
    """Standard deviation of a normal distribution with the same distance between its quartiles."""

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> _RobustStatistics:
        quartiles = np.percentile(values, (0, 25, 50, 75, 100), method="midpoint").tolist()
        deviation = (quartiles[3] - quartiles[1]) / (2 * _QUARTILE_OF_STANDARD_NORMAL)
        return cls(quartiles[0], quartiles[2], quartiles[4], deviation)


def _refuse_empty_range(lower: float, upper: float, method: str, source: str) -> None:
    if not lower < upper:
        raise InputError(
            f"{source}: normalization {method} finds no range of values (from {lower:g} to {upper:g}); "
            "the image is nearly constant, check that it is the right one"
        )


def _onto(
    output_range: tuple[float, float], lower: float, upper: float, zero_below: float | None = None
) -> IntensityMap:
    """The map that leads from [lower, upper] to the output range and clips outside."""
    scale = (output_range[1] - output_range[0]) / (upper - lower)
    return IntensityMap(scale, output_range[1] - scale * upper, output_range, zero_below)
