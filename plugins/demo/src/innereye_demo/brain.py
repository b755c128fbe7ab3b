"""The data: the MNI152 T1 template that nilearn carries, with the tissue of each voxel from its probability maps.

The template is the average of the T1-weighted MRI of 152 brains, skull-stripped and left-right symmetric (Fonov et al.,
"Unbiased nonlinear average age-appropriate brain templates from birth to adulthood", 2009; the symmetric ICBM 2009a).
It comes inside the nilearn package: nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from innereye_imaging.geometry import Image

SPACING_MM = 2
"""Voxel size, coarse enough for a laptop."""

GREY_MATTER, WHITE_MATTER = "grey_matter", "white_matter"

_LARGEST_STORED_VALUE = 255
"""The template is stored in bytes; nilearn scales it to [0, 1]."""


@dataclass(frozen=True, eq=False)
class Brain:
    """A T1-weighted image and where its tissues are."""

    t1: Image
    """uint8, (z, y, x)."""
    masks: Mapping[str, NDArray[np.bool_]]
    """Structure name → (z, y, x) on the same grid; no voxel is in two."""


def load_brain() -> Brain:
    """Load the template at 2 mm.

    The maps give each voxel a probability of grey and of white matter; what is left to 1 is that of everything else
    (cerebrospinal fluid, outside the brain). A voxel belongs to the most probable of the three.
    """
    from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template

    template = load_mni152_template(resolution=SPACING_MM)
    grey, white = (
        load(resolution=SPACING_MM).get_fdata().T for load in (load_mni152_gm_template, load_mni152_wm_template)
    )
    tissue = np.argmax(np.stack([1 - grey - white, grey, white]), axis=0)
    voxels = np.rint(template.get_fdata().T * _LARGEST_STORED_VALUE).astype(np.uint8)
    return Brain(
        t1=Image(np.ascontiguousarray(voxels), np.asarray(template.affine, np.float64)),
        masks={GREY_MATTER: tissue == 1, WHITE_MATTER: tissue == 2},
    )
