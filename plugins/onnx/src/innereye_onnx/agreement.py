"""Compares the scores of a runtime with those of eager float32 PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from innereye_core.errors import IntegrityError
from innereye_core.exported_networks import FLOAT32, Agreement
from innereye_core.model import Check
from innereye_imaging.inference import activate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from innereye_core.contract.providers import Network

POSTERIOR_TOLERANCE = 1e-4
"""By how much a posterior in float32 may differ from PyTorch's. Rounding changes posteriors by 1e-6 or so, a mistake in
an export by far more. Labels can then differ only where two classes are within twice of this."""


@dataclass(frozen=True, eq=False)
class Example:
    """A batch of patches with what eager float32 PyTorch gives for it."""

    patches: NDArray[np.float32]
    """(batch, channel, z, y, x)."""
    scores: NDArray[np.float32]
    """(batch, class, z', y', x'), before the activation."""


def measure(
    networks: Sequence[Network],
    examples: Sequence[Sequence[Example]],
    activation: Literal["softmax", "sigmoid", "none"],
    runtime: str,
    precision: str,
) -> Agreement:
    """Evaluate networks on their examples, and compare.

    Args:
        networks: as the runtime loaded them, one per checkpoint.
        examples: those of each checkpoint.
        activation: what makes posteriors of scores.
        runtime: its name.
        precision: what it computes in.

    Raises:
        IntegrityError: it fails, or gives NaN or another shape.
    """
    largest, differing, voxels = 0.0, 0, 0
    for network, own in zip(networks, examples, strict=True):
        for example in own:
            shape = list(example.patches.shape)
            try:
                scores = np.asarray(network.evaluate(example.patches))
                found, expected = activate(scores, activation), activate(example.scores, activation)
                largest = max(largest, float(np.abs(found - expected).max()))
            except Exception as error:  # a runtime may raise anything
                raise IntegrityError(
                    f"runtime {runtime} in {precision} cannot evaluate the exported network on patches of shape "
                    f"{shape}: {' '.join(str(error).split())}; nothing is published"
                ) from error
            differing += int(np.count_nonzero(found.argmax(axis=1) != expected.argmax(axis=1)))
            voxels += found[:, 0].size
    return Agreement(runtime, _library(networks), precision, differing / voxels, largest, voxels)


def report(agreement: Agreement) -> Check:
    """What was measured, in words.

    Raises:
        IntegrityError: the runtime says it computes in float32, and does not agree with PyTorch.
    """
    name = f"{agreement.runtime} {agreement.precision}"
    labels = f"{agreement.labels_differing:.3%} of the labels" if agreement.labels_differing else "no label"
    detail = (
        f"{labels} of a phantom of {agreement.voxels} voxels, and posteriors by up to "
        f"{agreement.largest_posterior_difference:.1e}, differ from PyTorch's in float32 ({agreement.library})"
    )
    if agreement.precision != FLOAT32:
        return Check(name, "warning", detail)
    if agreement.largest_posterior_difference > POSTERIOR_TOLERANCE:
        raise IntegrityError(f"{name}: {detail}; at most {POSTERIOR_TOLERANCE:.0e} is accepted, nothing is published")
    return Check(name, "passed", detail)


def _library(networks: Sequence[Network]) -> str:
    """What the runtime says about what runs."""
    checks: Sequence[Check] = getattr(networks[0], "checks", ())
    return next((check.detail for check in checks if check.name == "runtime"), "unknown")
