"""Builds a network from its factory and a checkpoint, and scores candidates with it."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from innereye_core.errors import InputError
from innereye_core.model import NetworkGeometry, SubjectScore
from toy_innereye.checkpoints import read_checkpoint


def load_network(config, checkpoint: Path, extra_code: Path | None):
    module, _, attribute = config.network.factory.partition(":")
    if extra_code is not None:
        sys.path.insert(0, str(extra_code.parent))
    try:
        network = getattr(importlib.import_module(module), attribute)(**config.network.arguments)
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(f"network.factory: {config.network.factory!r}: {error}") from None
    finally:
        if extra_code is not None:
            sys.path.remove(str(extra_code.parent))
    weights = read_checkpoint(checkpoint)["weights"]
    if set(weights) != set(network.weight_names):
        raise InputError(f"{checkpoint}: has the weights {sorted(weights)}, not {sorted(network.weight_names)}")
    network.weights = weights
    network.geometry = NetworkGeometry(
        network.size_multiple_zyx, network.minimum_size_zyx, config.inference.crop_size_zyx
    )
    return network


class ToyRuntime:
    name = "toy"

    def rank(self, model, device):
        return 1 if device == "cpu" else None

    def load(self, model, device):
        return [load_network(model.config, path, model.extra_code) for path in model.checkpoints]


class ToyEvaluator:
    """Scores on validation_images.json: {subject: {"image": [0.2, …], "mask": [0, …]}}."""

    name = "toy-network"
    priority = 0

    def evaluate(self, run, config, candidates, extra_code, providers, progress):
        path = run.folder / "validation_images.json"
        if not path.is_file():
            return {}
        subjects = json.loads(path.read_text())
        scores = {}
        with progress.track("validation", len(candidates)) as advance:
            for candidate in candidates:
                network = load_network(config, candidate.checkpoint, extra_code)
                scores[candidate.epoch] = [
                    SubjectScore(subject, dict.fromkeys(config.structure_names, dice(network, **images)))
                    for subject, images in subjects.items()
                ]
                advance(1)
        return scores


def dice(network, image: list[float], mask: list[int]) -> float:
    found = [network.foreground([value] * network.channels) for value in image]
    both = sum(1 for one, other in zip(found, mask, strict=True) if one and other)
    return 2 * both / (sum(found) + sum(mask)) if sum(found) + sum(mask) else float("nan")
