"""The one way from a patient's images to a segmentation: prepare once, then segment with any network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import to_device
from numpy.typing import NDArray

from innereye_core.config import ModelConfig
from innereye_imaging.inference import common_geometry, patch_posteriors
from innereye_imaging.masking import Confined, confine_posteriors
from innereye_imaging.patches import PatchReader
from innereye_imaging.postprocessing import (
    class_numbers,
    exclude_slices,
    keep_largest_components,
    most_probable_class,
    smooth_posteriors,
)
from innereye_imaging.stitching import make_stitcher
from innereye_imaging.study import Study, prepare_study, read_mask
from innereye_imaging.tiling import Box, Tile, TilingPlan, plan_tiling
from innereye_imaging.uncertainty import Uncertainty, normalized_disagreement, normalized_entropy

if TYPE_CHECKING:
    from innereye_core.contract.providers import Array, Network, Progress

__all__ = ["Segmentation", "Study", "prepare_study", "read_mask", "segment"]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What segmenting a study gives, on the grid of its input files."""

    labels: NDArray[np.uint8]
    """(z, y, x); label i is structure i, 0 is background."""
    posteriors: NDArray[np.float32] | None
    """(class, z, y, x), background first, after ensemble averaging and smoothing, before rules on labels."""
    uncertainty: Uncertainty | None = None
    """The entropy of these posteriors, and how far the members of an ensemble disagree before smoothing."""


def segment(
    study: Study,
    networks: Sequence[Network],
    config: ModelConfig,
    *,
    posteriors: bool = False,
    uncertainty: bool = False,
    progress: Progress | None = None,
) -> Segmentation:
    """Segment a study with one network, or with the mean of several.

    Labels are found while patches come in, and so is uncertainty; summed-probability rules work on each finished block
    of posteriors. An array of all posteriors is made only if it is asked for, if the config smooths posteriors, which
    needs them, or if the uncertainty of a resampled study is asked for. What is asked for changes no label.

    Args:
        study: from :func:`prepare_study`.
        networks: every member of the ensemble, or one.
        config: the model config.
        posteriors: whether to return posteriors.
        uncertainty: whether to return uncertainty. For an ensemble, as many posteriors as a patch is high are then held
            for each member.
        progress: where to say how many patches are done.

    Raises:
        InputError: image, config and network do not fit each other (see :func:`innereye_imaging.tiling.plan_tiling` and
            :func:`innereye_imaging.inference.patch_posteriors`).
        IntegrityError: a network returns NaN or infinite scores.
    """
    size_zyx = study.working_grid.size_zyx
    plan = plan_tiling(size_zyx, config.inference, common_geometry(networks))
    reader = PatchReader(study.channels, study.intensity_maps, plan)
    smoothing = config.postprocessing.posterior_smoothing_zyx_mm
    resampled = study.working_grid is not study.oriented_grid
    hold = posteriors or smoothing is not None or (uncertainty and resampled)
    result = _Result(config, size_zyx, with_posteriors=hold, with_entropy=uncertainty and not hold)
    sink = result if study.mask is None else Confined(result, study.mask)
    stitchers = [make_stitcher(config.inference.effective_stitching, plan, sink)]
    comparison = _Comparison(size_zyx, len(networks)) if uncertainty and len(networks) > 1 else None
    if comparison is not None:
        stitchers.append(make_stitcher(config.inference.effective_stitching, plan, comparison))
    with progress.track("Segmenting", len(plan)) if progress else nullcontext(_no_progress) as advance:
        for tile, blocks in _blocks(plan, reader, networks, config, with_members=comparison is not None):
            for stitcher, block in zip(stitchers, blocks, strict=True):
                stitcher.add(tile, block)
            del block, blocks
            advance(1)
    for stitcher in stitchers:
        stitcher.finish()
    if smoothing is not None and result.posteriors is not None:
        smooth_posteriors(result.posteriors, smoothing, study.working_grid.spacing_xyz_mm[::-1])
        if study.mask is not None:  # which smoothing has blurred
            confine_posteriors(result.posteriors, study.mask)
        result.find_labels_again()
    rules, numbers = config.postprocessing, class_numbers(config)
    keep_largest_components(result.labels, rules.largest_component, numbers)
    exclude_slices(result.labels, rules.slice_exclusion_rules, numbers)
    wanted = posteriors or (uncertainty and hold)
    final = study.posteriors_on_input_grid(result.posteriors) if wanted and result.posteriors is not None else None
    labels = study.labels_on_input_grid(result.labels)
    if study.mask_on_input_grid is not None:  # which nearest voxels of another grid may cross
        labels[~study.mask_on_input_grid] = 0
        if final is not None:
            confine_posteriors(final, study.mask_on_input_grid)
    return Segmentation(
        labels=labels,
        posteriors=final if posteriors else None,
        uncertainty=_uncertainty(study, final, result, comparison) if uncertainty else None,
    )


def _blocks(
    plan: TilingPlan, reader: PatchReader, networks: Sequence[Network], config: ModelConfig, *, with_members: bool
) -> Iterator[tuple[Tile, tuple[Array, ...]]]:
    """The mean posteriors (class, z, y, x) of every patch, and if asked those of all members (member · class, z, y, x).

    The members' are on the host: a GPU need not hold a slab of each.
    """
    if not with_members:
        for tile, mean in patch_posteriors(plan, reader, networks, config):
            yield tile, (mean,)
            del mean
        return
    each = [patch_posteriors(plan, reader, [network], config) for network in networks]
    for patches in zip(*each, strict=True):
        members = [posteriors for _, posteriors in patches]
        mean = sum(members) / len(members)
        yield patches[0][0], (mean, np.concatenate([_on_host(member) for member in members]))


def _uncertainty(
    study: Study, posteriors: NDArray[np.float32] | None, result: _Result, comparison: _Comparison | None
) -> Uncertainty | None:
    """The maps on the input's grid: the entropy of ``posteriors``, which lie there, or what was found on the way."""
    if posteriors is not None:
        entropy = np.stack([normalized_entropy(posteriors[:, z]) for z in range(posteriors.shape[1])])
    elif result.entropy is not None:
        entropy = study.posteriors_on_input_grid(result.entropy[np.newaxis])[0]
    else:
        return None
    disagreement = None
    if comparison is not None:
        disagreement = study.posteriors_on_input_grid(comparison.disagreement[np.newaxis])[0]
        if study.mask_on_input_grid is not None:
            disagreement[~study.mask_on_input_grid] = 0
    return Uncertainty(entropy, disagreement)


class _Result:
    """Takes finished posteriors and keeps their labels; the posteriors themselves or their entropy only if told so."""

    def __init__(
        self, config: ModelConfig, size_zyx: tuple[int, int, int], *, with_posteriors: bool, with_entropy: bool
    ) -> None:
        self._rules = config.postprocessing.summed_probability_rules
        self._numbers = class_numbers(config)
        self.labels = np.zeros(size_zyx, np.uint8)
        self.posteriors = np.zeros((config.class_count, *size_zyx), np.float32) if with_posteriors else None
        self.entropy = np.zeros(size_zyx, np.float32) if with_entropy else None

    def put(self, region: Box, posteriors: Array) -> None:
        """Store the final posteriors (class, z, y, x) of a region."""
        self.labels[region] = _on_host(most_probable_class(posteriors, self._rules, self._numbers))
        if self.posteriors is not None:
            self.posteriors[(slice(None), *region)] = _on_host(posteriors)
        if self.entropy is not None:
            self.entropy[region] = _on_host(normalized_entropy(posteriors))

    def find_labels_again(self) -> None:
        """Take the labels from the stored posteriors, slice by slice."""
        if self.posteriors is not None:
            for z, label_slice in enumerate(self.labels):
                label_slice[...] = most_probable_class(self.posteriors[:, z], self._rules, self._numbers)


class _Comparison:
    """Takes the finished posteriors of all members of an ensemble and keeps how far they disagree."""

    def __init__(self, size_zyx: tuple[int, int, int], members: int) -> None:
        self._members = members
        self.disagreement = np.zeros(size_zyx, np.float32)

    def put(self, region: Box, posteriors: Array) -> None:
        """Compare the members' posteriors (member · class, z, y, x) in a region."""
        by_member = posteriors.reshape(self._members, -1, *posteriors.shape[1:])
        self.disagreement[region] = normalized_disagreement(by_member)


def _on_host(values: Array) -> NDArray[np.generic]:
    """The same values as a numpy array in main memory."""
    return np.asarray(to_device(values, "cpu"))


def _no_progress(_steps: int) -> None:
    """Nobody watches."""
