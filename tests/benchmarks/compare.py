"""The fraction of voxels with another label: ``python -m benchmarks.compare FILE REFERENCE``, .npy or .nii.gz."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def disagreement(labels: NDArray[np.generic], reference: NDArray[np.generic]) -> float:
    """Fraction of voxels that differ.

    Raises:
        ValueError: the volumes have different shapes.
    """
    if labels.shape != reference.shape:
        raise ValueError(f"volumes of {labels.shape} and {reference.shape} voxels cannot be compared")
    return float(np.mean(labels != reference))


def _read(path: Path) -> NDArray[Any]:
    if path.suffix == ".npy":
        return np.asarray(np.load(path))
    import nibabel

    image: Any = nibabel.load(path)
    return np.asarray(image.dataobj)


if __name__ == "__main__":
    sys.stdout.write(f"{disagreement(*(_read(Path(name)) for name in sys.argv[1:3]))!r}\n")
