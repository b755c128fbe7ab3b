"""Core's selection policies: the best validation Dice, the last epoch, exactly the one asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence

from innereye_core.errors import InputError, UsageError
from innereye_core.model import ScoredCandidate


class BestValidationDice:
    """The epoch with the highest mean Dice on the validation set; a tie goes to the lowest epoch (InnerEye's rule).

    A subject without any defined Dice does not count, and an epoch without a countable subject cannot win.
    """

    name = "best_validation_dice"
    needs_scores = True

    def choose(self, candidates: Sequence[ScoredCandidate]) -> int:
        """The epoch with the highest score."""
        countable = [candidate for candidate in candidates if not math.isnan(candidate.score)]
        if not countable:
            epochs = ", ".join(str(candidate.epoch) for candidate in candidates)
            raise InputError(
                f"no epoch ({epochs}) has a defined validation Dice: every structure is empty in every subject; "
                "check the masks of the validation set"
            )
        # max() returns the first of equals, and candidates come in ascending order of epoch.
        return max(countable, key=lambda candidate: candidate.score).epoch


class LastEpoch:
    """The highest epoch."""

    name = "last"
    needs_scores = False

    def choose(self, candidates: Sequence[ScoredCandidate]) -> int:
        """The highest epoch."""
        return max(candidate.epoch for candidate in candidates)


class NamedEpoch:
    """Exactly the epoch that ``epochs_to_test`` names, which must be one."""

    name = "epoch"
    needs_scores = False

    def choose(self, candidates: Sequence[ScoredCandidate]) -> int:
        """The only epoch."""
        if len(candidates) != 1:
            epochs = ", ".join(str(candidate.epoch) for candidate in candidates)
            raise UsageError(
                f"policy 'epoch' needs exactly one candidate, and there are {epochs}; name it with --epochs-to-test"
            )
        return candidates[0].epoch
