"""A seeded CT of nobody: a body with lungs, a spine and organs in noise, in Hounsfield units, and what is where."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.sizes import SizeZYX

AIR, LUNG, TISSUE, BONE = -1000, -800, 40, 700
"""Hounsfield units."""
LEVEL, WINDOW = 40.0, 400.0
"""The window that the networks see it through, Hounsfield units. All air is below it, as in any CT."""

SPACING_XYZ_MM = (1.0, 1.0, 3.0)

_NOISE = 20.0
_CONTRAST = 35
"""Between an organ and the next, Hounsfield units: nearly twice the noise."""


def phantom(size_zyx: SizeZYX, classes: int, seed: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """The volume (z, y, x) and its labels; class 0 is all that is no organ."""
    rng = np.random.default_rng(seed)
    volume = np.empty(size_zyx, np.int16)
    labels = np.zeros(size_zyx, np.uint8)
    organs = [
        (rng.uniform((0.1, -0.45, -0.55), (0.9, 0.45, 0.55)), rng.uniform((0.15, 0.15, 0.15), (0.4, 0.35, 0.35)))
        for _ in range(3 * (classes - 1))
    ]
    y = np.linspace(-1, 1, size_zyx[1])[:, None]
    x = np.linspace(-1, 1, size_zyx[2])
    body = (y / 0.75) ** 2 + (x / 0.95) ** 2 < 1
    lungs = ((y + 0.1) / 0.4) ** 2 + ((np.abs(x) - 0.45) / 0.25) ** 2 < 1
    spine = ((y - 0.5) / 0.15) ** 2 + (x / 0.12) ** 2 < 1
    # Slice by slice, so that no array of wide numbers is as large as the volume.
    for index, z in enumerate(np.linspace(0, 1, size_zyx[0])):
        values = np.where(body, TISSUE, AIR)
        values[lungs & (z > 0.6)] = LUNG
        for number, (centre, radii) in enumerate(organs):
            in_slice = 1 - ((z - centre[0]) / radii[0]) ** 2
            if in_slice <= 0:
                continue
            inside = (((y - centre[1]) / radii[1]) ** 2 + ((x - centre[2]) / radii[2]) ** 2 < in_slice) & body
            label = 1 + number % (classes - 1)
            steps = label - 1 - (classes - 1) // 2
            values[inside] = TISSUE + _CONTRAST * (steps if steps < 0 else steps + 1)
            labels[index][inside] = label
        values[spine] = BONE
        labels[index][spine] = 0
        volume[index] = np.rint(values + rng.normal(0, _NOISE, values.shape))
    return volume, labels


def through_window(volume: NDArray[np.int16]) -> NDArray[np.float32]:
    """The volume as the networks see it, in [-1, 1]: what the config's ``ct_window`` gives, to the last bit."""
    scale = 2 / WINDOW
    offset = 1 - scale * (LEVEL + WINDOW / 2)
    normalized = np.empty(volume.shape, np.float32)
    for target, values in zip(normalized, volume, strict=True):
        target[...] = np.clip(values.astype(np.float64) * scale + offset, -1, 1)
    return normalized
