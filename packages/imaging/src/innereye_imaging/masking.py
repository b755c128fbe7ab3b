"""Confine a segmentation to a mask: outside it, background with probability 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import device as device_of
from numpy.typing import NDArray

from innereye_imaging.stitching import Sink
from innereye_imaging.tiling import Box

if TYPE_CHECKING:
    from innereye_core.contract.providers import Array


class Confined:
    """A sink that lets background take the place of posteriors outside a mask, and hands them on.

    InnerEye's order: after overlapping patches are averaged, before posteriors are smoothed.
    """

    def __init__(self, sink: Sink, mask: NDArray[np.bool_]) -> None:
        """Confine what goes to ``sink`` to a mask (z, y, x) of the whole image, True inside."""
        self._sink = sink
        self._mask = mask

    def put(self, region: Box, posteriors: Array) -> None:
        """Hand on the posteriors (class, z, y, x) of a region."""
        xp = array_namespace(posteriors)
        inside = xp.asarray(self._mask[region], device=device_of(posteriors))
        background = xp.zeros_like(posteriors)
        background[0, ...] = 1
        self._sink.put(region, xp.where(inside, posteriors, background))


def confine_posteriors(posteriors: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
    """Set posteriors (class, z, y, x) outside a mask (z, y, x) to background, in place."""
    for number, posterior in enumerate(posteriors):
        posterior[~mask] = number == 0
