"""How unsure a model is of each voxel: the entropy of its posteriors, and how far the members of an ensemble disagree.

Written against the array API standard, so that maps are computed where the posteriors are. Posteriors that do not sum
to 1, as those of a sigmoid, are divided by their sum first; where all are 0, every class counts as equally probable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

if TYPE_CHECKING:
    from innereye_core.contract.providers import Array


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Maps on the voxels of an image."""

    entropy: NDArray[np.float32]
    """(z, y, x), in [0, 1]: :func:`normalized_entropy` of the posteriors."""
    disagreement: NDArray[np.float32] | None
    """(z, y, x), in [0, 1]: :func:`normalized_disagreement` of the members; None for a single network."""


def normalized_entropy(posteriors: Array) -> Array:
    """Shannon entropy of the class probabilities of each voxel, divided by its maximum, the logarithm of the classes.

    Args:
        posteriors: (class, …), float32, two classes or more.

    Returns:
        float32 (…): 0 where one class has all probability, 1 where all classes are equally probable; in the array type
        and on the device of ``posteriors``.
    """
    return _entropy(_probabilities(posteriors))


def normalized_disagreement(members: Array) -> Array:
    """Mutual information between the class of each voxel and the choice of the member, on the scale of the entropy.

    That is the entropy of the members' mean minus the mean of the members' entropies: the part of the uncertainty that
    comes from not knowing the right weights (Houlsby et al., "Bayesian Active Learning for Classification and
    Preference Learning", 2011; Smith and Gal, "Understanding Measures of Uncertainty for Adversarial Example
    Detection", 2018). As a distance between distributions it is the generalised Jensen-Shannon divergence (Lin,
    "Divergence measures based on the Shannon entropy", 1991).

    Args:
        members: (member, class, …), float32, two classes or more.

    Returns:
        float32 (…): 0 where all members have the same posteriors, however unsure each of them is; at most 1; in the
        array type and on the device of ``members``.
    """
    xp = array_namespace(members)
    each = [_probabilities(members[number, ...]) for number in range(members.shape[0])]
    mean_entropy = sum(_entropy(member) for member in each) / len(each)
    return xp.clip(_entropy(sum(each) / len(each)) - mean_entropy, 0, 1)


def _probabilities(posteriors: Array) -> Array:
    """Posteriors (class, …) made to sum to 1."""
    xp = array_namespace(posteriors)
    positive = xp.clip(posteriors, 0, None)  # a network that returns probabilities may round below 0
    none_at_all = xp.sum(positive, axis=0) <= 0
    positive = positive + xp.astype(none_at_all, positive.dtype)
    return positive / xp.sum(positive, axis=0)


def _entropy(probabilities: Array) -> Array:
    xp = array_namespace(probabilities)
    entropy = xp.zeros_like(probabilities[0, ...])
    for number in range(probabilities.shape[0]):
        share = probabilities[number, ...]
        entropy -= share * xp.log(share + xp.astype(share <= 0, share.dtype))  # 0 · log 0 is 0
    return xp.clip(entropy / math.log(probabilities.shape[0]), 0, 1)
