"""A selection policy: the epoch whose worst structure is best."""

import math


class WorstStructure:
    name = "worst_structure"
    needs_scores = True

    def choose(self, candidates):
        def worst(candidate):
            return min((dice for dice in candidate.structures.values() if not math.isnan(dice)), default=0.0)

        return max(candidates, key=worst).epoch
