"""The one way from a patient's images to a segmentation: prepare once, then segment with any network."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import to_device
from numpy.typing import NDArray

from innereye_core.config import ModelConfig
from innereye_imaging.inference import common_geometry, patch_posteriors
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
from innereye_imaging.tiling import Box, plan_tiling

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


def segment(
    study: Study,
    networks: Sequence[Network],
    config: ModelConfig,
    *,
    posteriors: bool = False,
    progress: Progress | None = None,
) -> Segmentation:
    """Segment a study with one network, or with the mean of several.

    Labels are found while patches come in. An array of all posteriors is made only if it is asked for, or if the config
    smooths posteriors, which needs them; summed-probability rules work on each finished block of posteriors.

    Args:
        study: from :func:`prepare_study`.
        networks: every member of the ensemble, or one.
        config: the model config.
        posteriors: whether to return posteriors.
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
    result = _Result(config, size_zyx, with_posteriors=posteriors or smoothing is not None)
    stitcher = make_stitcher(config.inference.effective_stitching, plan, result)
    with progress.track("Segmenting", len(plan)) if progress else nullcontext(_no_progress) as advance:
        for tile, block in patch_posteriors(plan, reader, networks, config):
            stitcher.add(tile, block)
            advance(1)
    stitcher.finish()
    if smoothing is not None and result.posteriors is not None:
        smooth_posteriors(result.posteriors, smoothing, study.working_grid.spacing_xyz_mm[::-1])
        result.find_labels_again()
    rules, numbers = config.postprocessing, class_numbers(config)
    keep_largest_components(result.labels, rules.largest_component, numbers)
    exclude_slices(result.labels, rules.slice_exclusion_rules, numbers)
    wanted = result.posteriors if posteriors else None
    return Segmentation(
        labels=study.labels_on_input_grid(result.labels),
        posteriors=None if wanted is None else study.posteriors_on_input_grid(wanted),
    )


class _Result:
    """Takes finished posteriors and keeps their labels; the posteriors themselves only if told so."""

    def __init__(self, config: ModelConfig, size_zyx: tuple[int, int, int], *, with_posteriors: bool) -> None:
        self._rules = config.postprocessing.summed_probability_rules
        self._numbers = class_numbers(config)
        self.labels = np.zeros(size_zyx, np.uint8)
        self.posteriors = np.zeros((config.class_count, *size_zyx), np.float32) if with_posteriors else None

    def put(self, region: Box, posteriors: Array) -> None:
        """Store the final posteriors (class, z, y, x) of a region."""
        self.labels[region] = _on_host(most_probable_class(posteriors, self._rules, self._numbers))
        if self.posteriors is not None:
            self.posteriors[(slice(None), *region)] = _on_host(posteriors)

    def find_labels_again(self) -> None:
        """Take the labels from the stored posteriors, slice by slice."""
        if self.posteriors is not None:
            for z, label_slice in enumerate(self.labels):
                label_slice[...] = most_probable_class(self.posteriors[:, z], self._rules, self._numbers)


def _on_host(values: Array) -> NDArray[np.generic]:
    """The same values as a numpy array in main memory."""
    return np.asarray(to_device(values, "cpu"))


def _no_progress(_steps: int) -> None:
    """Nobody watches."""
