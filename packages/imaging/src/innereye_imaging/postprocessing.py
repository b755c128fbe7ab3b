"""From posteriors to labels, and the rules that correct labels, in the order that InnerEye applied them.

Smoothing of posteriors → most probable class → summed-probability rules → largest components → slice exclusion.
The first and the last two need the whole image; the two between look at one voxel at a time, so they work on any
block of posteriors, in any array library that follows the array API standard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import device as device_of
from numpy.typing import NDArray

from innereye_core.config import LargestComponent, ModelConfig, SliceExclusionRule, SummedProbabilityRule

if TYPE_CHECKING:
    from innereye_core.contract.providers import Array

Labels = NDArray[np.uint8]

_THRESHOLD_THAT_LEAVES_ONE = 0.5
"""From here on at most one component can be large enough; InnerEye then keeps the largest whatever its size."""


def class_numbers(config: ModelConfig) -> dict[str, int]:
    """Structure name → class number, from 1."""
    return {name: number for number, name in enumerate(config.structure_names, start=1)}


def smooth_posteriors(
    posteriors: NDArray[np.float32], kernel_zyx_mm: Sequence[float], spacing_zyx_mm: Sequence[float]
) -> NDArray[np.float32]:
    """Gaussian smoothing of each class, mirrored at the border.

    Args:
        posteriors: (class, z, y, x); overwritten with the result, to hold one copy only.
        kernel_zyx_mm: standard deviation along z, y, x.
        spacing_zyx_mm: voxel size along z, y, x.
    """
    from scipy.ndimage import gaussian_filter

    sigma = np.asarray(kernel_zyx_mm) / np.asarray(spacing_zyx_mm)
    for posterior in posteriors:
        gaussian_filter(posterior, sigma, output=posterior)
    return posteriors


def most_probable_class(posteriors: Array, rules: Sequence[SummedProbabilityRule], numbers: Mapping[str, int]) -> Array:
    """Labels of a block of posteriors, after summed-probability rules.

    At a tie the lower class wins. A rule looks at the voxels labelled with its external class: where the first and
    the second class together are more probable than it, the more probable of these two wins (the first at a tie).

    Args:
        posteriors: (class, …).
        rules: in the order in which they apply.
        numbers: structure name → class number.

    Returns:
        uint8 (…), in the array type and on the device of ``posteriors``.
    """
    xp = array_namespace(posteriors)
    # A running maximum: several times faster than argmax over the first axis, in numpy and in torch on a CPU.
    best = posteriors[0, ...]
    labels = xp.zeros(best.shape, dtype=xp.uint8, device=device_of(posteriors))
    for number in range(1, posteriors.shape[0]):
        better = posteriors[number, ...] > best
        best = xp.where(better, posteriors[number, ...], best)
        labels[better] = number
    for rule in rules:
        first, second, external = (numbers[name] for name in (rule.first_class, rule.second_class, rule.external_class))
        outweighed = posteriors[first, ...] + posteriors[second, ...] > posteriors[external, ...]
        replaced = (labels == external) & outweighed
        first_wins = posteriors[first, ...] >= posteriors[second, ...]
        labels[replaced & first_wins] = first
        labels[replaced & ~first_wins] = second
    return labels


def keep_largest_components(labels: Labels, rules: Sequence[LargestComponent], numbers: Mapping[str, int]) -> None:
    """Set all but the largest face-connected component of each named structure to background, in place.

    With a threshold below 0.5, components of at least this fraction of the structure all stay; if there is none, and
    with any other threshold, only the largest stays. Of several largest ones the first stays, in the order of the
    voxels in memory (z slowest).

    Args:
        labels: uint8 (z, y, x).
        rules: which structures, with their thresholds.
        numbers: structure name → class number.
    """
    import cc3d

    if not rules:
        return
    named = np.unique([numbers[rule.structure] for rule in rules])
    # One pass for all structures; ids count up in the order in which components are met.
    components = cc3d.connected_components(np.where(np.isin(labels, named), labels, np.uint8(0)), connectivity=6)
    sizes = cc3d.statistics(components)["voxel_counts"].astype(np.int64)
    structure_of = np.zeros(len(sizes), np.uint8)
    for component_slice, label_slice in zip(components, labels, strict=True):
        structure_of[component_slice] = label_slice
    structure_of[0] = 0  # everything that no rule names
    removed = np.zeros(len(sizes), bool)
    for rule in rules:
        ids = np.flatnonzero((structure_of == numbers[rule.structure]) & ~removed)
        if not ids.size:
            continue
        kept = ids[:0]
        if rule.threshold is not None and rule.threshold < _THRESHOLD_THAT_LEAVES_ONE:
            kept = ids[sizes[ids] >= rule.threshold * sizes[ids].sum()]
        if not kept.size:
            kept = ids[[np.argmax(sizes[ids])]]
        removed[np.setdiff1d(ids, kept)] = True
    for component_slice, label_slice in zip(components, labels, strict=True):
        label_slice[removed[component_slice]] = 0


def exclude_slices(labels: Labels, rules: Sequence[SliceExclusionRule], numbers: Mapping[str, int]) -> None:
    """Let one of two structures take over the axial slices that both claim, in place.

    The slices are those from the lowest that has the higher structure to the highest that has the lower one; in them
    every voxel of the dominated structure becomes the dominating one.

    Args:
        labels: uint8 (z, y, x), z upwards.
        rules: in the order in which they apply.
        numbers: structure name → class number.
    """
    for rule in rules:
        higher, lower = numbers[rule.higher_class], numbers[rule.lower_class]
        with_higher = np.flatnonzero((labels == higher).any(axis=(1, 2)))
        with_lower = np.flatnonzero((labels == lower).any(axis=(1, 2)))
        if not (with_higher.size and with_lower.size):
            continue
        shared = labels[with_higher[0] : with_lower[-1] + 1]
        dominating, dominated = (higher, lower) if rule.higher_dominates else (lower, higher)
        shared[shared == dominated] = dominating
