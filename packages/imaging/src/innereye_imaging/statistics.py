"""How much of each structure a segmentation holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from innereye_core.model import StructureVolume

_MM3_PER_ML = 1000


def structure_volumes(
    labels: NDArray[np.uint8], voxel_volume_mm3: float, structure_names: Sequence[str]
) -> dict[str, StructureVolume]:
    """Voxels and volume of each structure.

    Args:
        labels: (z, y, x); label i is structure number i, counted from 1.
        voxel_volume_mm3: volume of one voxel.
        structure_names: structures 1, 2, …

    Returns:
        Structure name → label, number of voxels, volume in millilitres; also for structures that were not found.
    """
    # Slice by slice, since bincount works on a 64-bit copy.
    voxels = np.zeros(256, np.int64)
    for label_slice in labels:
        voxels += np.bincount(label_slice.ravel(), minlength=256)
    return {
        name: StructureVolume(number, int(voxels[number]), float(voxels[number] * voxel_volume_mm3 / _MM3_PER_ML))
        for number, name in enumerate(structure_names, start=1)
    }
