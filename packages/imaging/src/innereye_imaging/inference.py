"""Evaluate networks on the patches of a plan: batches, activation, and the mean over the members of an ensemble.

Scores stay in the runtime's own array type and on its device; everything here is written against the array API
standard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import device as device_of

from innereye_core.config import ModelConfig
from innereye_core.errors import InputError, IntegrityError
from innereye_core.model import NetworkGeometry
from innereye_imaging.patches import PatchReader
from innereye_imaging.tiling import Box, Tile, TilingPlan

if TYPE_CHECKING:
    from innereye_core.contract.providers import Array, Network

_SLICES = 8

_PROBABILITY_TOLERANCE = 1e-3
"""Rounding that is accepted outside [0, 1] where a network says that it returns probabilities."""


def common_geometry(networks: Sequence[Network]) -> NetworkGeometry:
    """What all members of an ensemble ask of their patches.

    Raises:
        InputError: there is no network, or the members differ, so that they cannot share patches.
    """
    geometries = {network.geometry for network in networks}
    if len(geometries) != 1:
        problem = "no network was loaded" if not geometries else f"the members differ in their patches: {geometries}"
        raise InputError(f"The model cannot be evaluated: {problem}; package it again from checkpoints of one network")
    return geometries.pop()


def patch_posteriors(
    plan: TilingPlan, reader: PatchReader, networks: Sequence[Network], config: ModelConfig
) -> Iterator[tuple[Tile, Array]]:
    """Class probabilities of every patch, mean over ``networks``.

    Returns:
        In the order of the plan: a patch, and (class, z, y, x) of its region ``keep``, float32, in the runtime's own
        array type.

    Raises:
        InputError: a network's scores have another number of classes or another size than the config and the network's
            geometry say, or are no probabilities where the activation is ``none``.
        IntegrityError: a score is NaN or infinite.
    """
    tiles = list(plan)
    batch_size = config.inference.batch_size
    for first in range(0, len(tiles), batch_size):
        batch = tiles[first : first + batch_size]
        patches = np.stack([reader.read(tile.start_zyx) for tile in batch])
        region = _smallest_box_around([tile.keep for tile in batch])
        everything = region == tuple(slice(0, size) for size in plan.output_size_zyx)
        expected = (len(batch), config.class_count, *(along.stop - along.start for along in region))
        total: Array = None
        for network in networks:
            scores = network.evaluate(patches, None if everything else region)
            if tuple(scores.shape) != expected:
                raise InputError(
                    f"The network returns scores of shape {tuple(scores.shape)} instead of {expected} (batch, class, "
                    "z, y, x); make the config's structures (plus background) and network settings agree with it"
                )
            probabilities = activate(scores, config.network.activation)
            del scores
            total = probabilities if total is None else total + probabilities
            del probabilities
        if len(networks) > 1:
            total = total / len(networks)
        for tile, posteriors in zip(batch, total, strict=True):
            inside = (slice(k.start - r.start, k.stop - r.start) for k, r in zip(tile.keep, region, strict=True))
            yield tile, posteriors[(slice(None), *inside)]
            del posteriors  # whoever takes them lets them go, too, before the next patch is computed


def activate(scores: Array, activation: Literal["softmax", "sigmoid", "none"]) -> Array:
    """Turn scores into probabilities.

    Args:
        scores: (batch, class, z, …), floats of any precision; one channel per class, the background's first.
        activation: ``softmax`` over classes; ``sigmoid`` for each class on its own, so that they need not sum to 1 and
            the label is the most probable one, background included; ``none``: they are probabilities already.

    Returns:
        float32 of the same shape.

    Raises:
        IntegrityError: a score is NaN or infinite.
        InputError: activation ``none``, and a value lies outside [0, 1].
    """
    xp = array_namespace(scores)
    probabilities = xp.empty(scores.shape, dtype=xp.float32, device=device_of(scores))
    # A few slices at a time, because each step makes arrays as large as what it is given.
    for start in range(0, scores.shape[2], _SLICES):
        part = (slice(None), slice(None), slice(start, start + _SLICES))
        probabilities[part] = _activated(xp.astype(scores[part], xp.float32), activation)
    return probabilities


def _activated(scores: Array, activation: Literal["softmax", "sigmoid", "none"]) -> Array:
    xp = array_namespace(scores)
    if not bool(xp.all(xp.isfinite(scores))):
        raise IntegrityError("The network returns NaN or infinite scores; its weights or its input are damaged")
    if activation == "softmax":
        exponentials = xp.exp(scores - xp.max(scores, axis=1, keepdims=True))
        return exponentials / xp.sum(exponentials, axis=1, keepdims=True)
    if activation == "sigmoid":
        # Of ±scores only the negative one goes into exp, which then cannot overflow.
        decay = xp.exp(-xp.abs(scores))
        return xp.where(scores >= 0, 1 / (1 + decay), decay / (1 + decay))
    lowest, highest = float(xp.min(scores)), float(xp.max(scores))
    if lowest < -_PROBABILITY_TOLERANCE or highest > 1 + _PROBABILITY_TOLERANCE:
        raise InputError(
            f"network.activation is none, but the network returns values from {lowest:.4g} to {highest:.4g}, which "
            "are no probabilities; set it to softmax or sigmoid"
        )
    return scores


def _smallest_box_around(boxes: Sequence[Box]) -> Box:
    z, y, x = (
        slice(min(along.start for along in axis), max(along.stop for along in axis))
        for axis in zip(*boxes, strict=True)
    )
    return z, y, x
