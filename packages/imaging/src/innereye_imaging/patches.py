"""Cut patches out of the stored image, padded and normalised on the way, so that no normalised copy of it is needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from innereye_core.model import SizeZYX
from innereye_imaging.geometry import Voxels
from innereye_imaging.normalization import IntensityMap
from innereye_imaging.tiling import TilingPlan

_MODES_THAT_REPEAT_VOXELS = frozenset({"constant", "edge", "reflect", "symmetric", "wrap"})
"""Modes of numpy.pad whose new voxels are voxels of the image, or 0. The others compute values, from whole lines."""

_ZERO = -1
"""Source index of a voxel that padding sets to 0."""


class PatchReader:
    """Gives the normalised patches of one study.

    Padding continues the *normalised* image, as InnerEye did: zeros are zeros after normalisation.
    """

    def __init__(self, channels: Sequence[Voxels], maps: Sequence[IntensityMap], plan: TilingPlan) -> None:
        """Prepare the patches of ``channels`` (each (z, y, x) as stored), one intensity map per channel."""
        self._crop_size_zyx = plan.crop_size_zyx
        self._maps = list(maps)
        self._channels = list(channels)
        steps = plan.padding
        if any(step.mode not in _MODES_THAT_REPEAT_VOXELS for step in steps):
            # Means, ramps and the like depend on whole lines of the image: pad it once, as a whole.
            for channel, (voxels, intensity_map) in enumerate(zip(channels, maps, strict=True)):
                padded: Voxels = intensity_map.apply(voxels).astype(np.float32)
                for step in steps:
                    padded = np.pad(padded, step.widths_zyx, mode=step.mode)  # type: ignore[call-overload]
                self._channels[channel] = padded
            self._maps = [IntensityMap()] * len(self._channels)
            steps = ()
        self._sources = [np.arange(size) for size in self._channels[0].shape]
        for step in steps:
            filling = {"constant_values": _ZERO} if step.mode == "constant" else {}
            self._sources = [
                np.pad(source, widths, mode=step.mode, **filling)  # type: ignore[call-overload]
                for source, widths in zip(self._sources, step.widths_zyx, strict=True)
            ]

    def read(self, start_zyx: SizeZYX) -> NDArray[np.float32]:
        """The patch whose first voxel is ``start_zyx`` of the padded image: (channel, z, y, x)."""
        z, y, x = (
            source[start : start + size]
            for source, start, size in zip(self._sources, start_zyx, self._crop_size_zyx, strict=True)
        )
        patch = np.empty((len(self._channels), len(z), len(y), len(x)), np.float32)
        for values, voxels, intensity_map in zip(patch, self._channels, self._maps, strict=True):
            values[...] = intensity_map.apply(voxels[np.ix_(z, y, x)])
        patch[:, z == _ZERO] = 0
        patch[:, :, y == _ZERO] = 0
        patch[:, :, :, x == _ZERO] = 0
        return patch
