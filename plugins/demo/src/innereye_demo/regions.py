"""Which part of the brain is held out for validation, and which parts are trained on.

The template is left-right symmetric, so one hemisphere says nothing new about the other. Regions are therefore slabs of
coronal slices, one behind the other from the back of the head to the front (along y), and between what is held out and
what is trained on some slices belong to neither: neighbouring slices are nearly alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from innereye_demo.brain import Brain
from innereye_imaging.geometry import Grid, Image

GAP_SLICES = 4
"""Slices between what is held out and what is trained on: 8 mm."""


@dataclass(frozen=True)
class Slab:
    """Coronal slices ``start`` to ``stop`` (not included) of the image, counted from the back of the head."""

    name: str
    start: int
    stop: int

    def cut(self, image: Image) -> Image:
        """This part of an image (z, y, x), at its place in space."""
        shift = np.eye(4)
        shift[1, 3] = self.start
        return Image(np.ascontiguousarray(image.voxels[:, self.start : self.stop]), image.affine @ shift)

    def range_mm(self, grid: Grid) -> str:
        """World coordinates y of its first and last slice, in mm."""
        first, last = (grid.affine @ (0, index, 0, 1) for index in (self.start, self.stop - 1))
        return f"{first[1]:+.0f} to {last[1]:+.0f} mm"


@dataclass(frozen=True)
class Split:
    """What is held out for validation, and what is trained on."""

    held_out: Slab
    training: tuple[Slab, ...]


def splits(brain: Brain, parts: int) -> tuple[Split, ...]:
    """Cut the brain into ``parts`` slabs of about equal depth, and hold out each of them once.

    Args:
        brain: the brain, its voxel axis y pointing to the front.
        parts: at least 2.

    Returns:
        One split per slab, from the back of the head to the front.
    """
    tissue = np.any(list(brain.masks.values()), axis=0)
    slices = np.flatnonzero(tissue.any(axis=(0, 2)))
    end = tissue.shape[1]
    inner = np.linspace(slices[0], slices[-1] + 1, parts + 1).round().astype(int).tolist()[1:-1]
    return tuple(
        Split(Slab("held_out", start, stop), tuple(_around(start, stop, end)))
        for start, stop in pairwise([0, *inner, end])
    )


def _around(start: int, stop: int, end: int) -> Iterator[Slab]:
    """What lies behind and in front of the held-out slices."""
    if start > 0:
        yield Slab("posterior", 0, start - GAP_SLICES)
    if stop < end:
        yield Slab("anterior", stop + GAP_SLICES, end)
