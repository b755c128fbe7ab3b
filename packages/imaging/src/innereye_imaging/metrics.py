"""Dice of a segmentation against masks, per structure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from innereye_core.errors import InputError


def dice_per_structure(
    labels: NDArray[np.uint8], masks: Mapping[str, NDArray[np.bool_]], structure_names: Sequence[str]
) -> dict[str, float]:
    """Dice coefficient 2·|A∩B| / (|A| + |B|) of each structure.

    Args:
        labels: (z, y, x); label i is structure number i, counted from 1.
        masks: structure name → (z, y, x), on the same grid.
        structure_names: structures 1, 2, …; each must have a mask.

    Returns:
        Structure name → Dice in [0, 1]; NaN where the structure is empty in both.

    Raises:
        InputError: a structure has no mask, or a mask has another shape.
    """
    scores = {}
    for number, name in enumerate(structure_names, start=1):
        if name not in masks:
            raise InputError(
                f"Structure {name!r} has no mask to compare with; masks are there for {', '.join(masks) or 'none'}"
            )
        mask = masks[name]
        if mask.shape != labels.shape:
            raise InputError(f"Mask of {name!r} has shape {mask.shape}, the segmentation {labels.shape} (z, y, x)")
        found = labels == number
        sizes = np.count_nonzero(found) + np.count_nonzero(mask)
        scores[name] = 2 * np.count_nonzero(found & mask) / sizes if sizes else math.nan
    return scores
