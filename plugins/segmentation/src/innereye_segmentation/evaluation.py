"""Scores candidates on the validation split of their run, by segmenting its images with each of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from innereye_core.model import SubjectScore
from innereye_imaging.dataset import read_split
from innereye_imaging.metrics import dice_per_structure
from innereye_imaging.pipeline import prepare_study, read_mask, segment
from innereye_segmentation.runtime import load_network, with_geometry

if TYPE_CHECKING:
    from innereye_core.config import ModelConfig
    from innereye_core.contract.providers import Device, Progress, Providers
    from innereye_core.model import Candidate, Run

logger = logging.getLogger(__name__)


def evaluate_candidates(
    run: Run,
    config: ModelConfig,
    candidates: Sequence[Candidate],
    extra_code: Path | None,
    providers: Providers,
    progress: Progress,
) -> dict[int, list[SubjectScore]]:
    """Dice of every candidate on every subject of the validation split, by epoch.

    Each image is read and normalised once for all candidates. One network is in memory at a time, so that memory does
    not grow with the number of candidates. Every checkpoint is loaded once before the first image is segmented: what
    cannot be used is refused before the time is spent.

    Raises:
        InputError: dataset.csv, one of its files, a checkpoint, or the network's factory cannot be used.
        IntegrityError: a weight is NaN or infinite.
    """
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    split = read_split(run.folder / "dataset.csv", "val", config.image_channels, config.structure_names)
    subjects = split.complete()
    for candidate in candidates:
        geometry = load_network(config, candidate.checkpoint, extra_code, device).geometry
        config = with_geometry(config, geometry)
    scores: dict[int, list[SubjectScore]] = {candidate.epoch: [] for candidate in candidates}
    with progress.track("Evaluating candidates", total=len(subjects) * len(candidates)) as advance:
        for subject in subjects:
            study = prepare_study(subject.images, config, providers, mask=subject.mask)
            masks = {name: read_mask(path, study, providers) for name, path in subject.references.items()}
            for candidate in candidates:
                networks = [load_network(config, candidate.checkpoint, extra_code, device)]
                labels = segment(study, networks, config).labels
                networks.clear()  # before the next one is loaded
                dice = dice_per_structure(labels, masks, config.structure_names)
                score = SubjectScore(subject.name, dice)
                logger.info("epoch %d, subject %s: mean Dice %.4f", candidate.epoch, subject.name, score.mean_dice)
                scores[candidate.epoch].append(score)
                advance(1)
    return scores
