"""Networks that fit into one line: the foreground score of a voxel is how far its value lies above a threshold."""

from __future__ import annotations


class Threshold:
    weight_names = ("threshold",)
    size_multiple_zyx = (2, 4, 4)
    minimum_size_zyx = (2, 4, 4)

    def __init__(self, channels: int = 1) -> None:
        self.channels = channels
        self.weights: dict[str, float] = {}

    def foreground(self, values: list[float]) -> float:
        return 1.0 if sum(values) / self.channels > self.weights["threshold"] else 0.0
