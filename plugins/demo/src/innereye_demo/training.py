"""Trains the network of a model config on the CPU, in a plain PyTorch loop, with a checkpoint after every epoch."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from innereye_demo.run_folder import Subject
from innereye_imaging.study import prepare_study, read_mask
from innereye_segmentation.networks.factory import build_network

if TYPE_CHECKING:
    from innereye_core.config import ModelConfig
    from innereye_core.contract.providers import Providers

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train; this takes about 25 seconds."""

    epochs: int = 10
    steps_per_epoch: int = 12
    patches_per_step: int = 8
    patch_size_zyx: tuple[int, int, int] = (24, 24, 24)
    learning_rate: float = 5e-3
    """Constant: towards the end the validation Dice still goes up and down, so that there is something to select."""
    seed: int = 0

    @property
    def steps(self) -> int:
        """Number of optimizer steps in all."""
        return self.epochs * self.steps_per_epoch


def train(
    subjects: Sequence[Subject],
    config: ModelConfig,
    checkpoints: Path,
    providers: Providers,
    schedule: Schedule,
    advance: Callable[[int], None],
) -> None:
    """Train the network and write ``checkpoints/N_checkpoint.pth.tar`` after epoch N.

    Images are prepared as they are for scoring. Weights and patches come from the schedule's seed alone, and sums are
    made in one order, so that a machine gives the same checkpoints each time.

    Args:
        subjects: the regions to train on.
        config: network, normalisation and structures.
        checkpoints: an existing folder.
        providers: where image formats come from.
        schedule: how long and how fast.
        advance: called with the number of steps just done.
    """
    patches = _Patches([_load_region(subject, config, providers) for subject in subjects], schedule)
    with _reproducible(schedule.seed):
        network = build_network(config.network)
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's stubs do not know it
        network.train()
        optimizer = torch.optim.Adam(network.parameters(), lr=schedule.learning_rate)
        for epoch in range(1, schedule.epochs + 1):
            losses = []
            for _ in range(schedule.steps_per_epoch):
                images, classes = patches.draw()
                loss = segmentation_loss(network(images), classes)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                optimizer.step()
                losses.append(loss.item())
                advance(1)
            _log.info("epoch %d: mean loss %.4f", epoch, np.mean(losses))
            _save_checkpoint(checkpoints / f"{epoch}_checkpoint.pth.tar", epoch, network, optimizer)


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Start torch's random numbers at ``seed``, and compute on one thread; then leave both as they were.

    Patches as small as these gain little from more threads, and lose much where other processes need the cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def segmentation_loss(scores: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy plus 1 - mean soft Dice of the structures (Milletari et al., "V-Net", 2016).

    Args:
        scores: (batch, class, z, y, x), before the activation; class 0 is the background.
        classes: (batch, z, y, x), integers.

    Returns:
        A scalar, 0 for a perfect and certain segmentation.
    """
    probabilities = scores.softmax(dim=1)
    expected = one_hot(classes, scores.shape[1]).movedim(-1, 1).to(scores.dtype)
    space = (0, 2, 3, 4)
    overlap = (probabilities * expected).sum(space)
    total = (probabilities + expected).sum(space)
    dice = (2 * overlap + 1) / (total + 1)  # 1 where a structure is in neither
    return cross_entropy(scores, classes) + 1 - dice[1:].mean()


@dataclass(frozen=True, eq=False)
class _Region:
    image: NDArray[np.float32]
    """(channel, z, y, x), normalised."""
    classes: NDArray[np.int64]
    """(z, y, x)."""


def _load_region(subject: Subject, config: ModelConfig, providers: Providers) -> _Region:
    study = prepare_study([subject.image], config, providers)
    image = [normalise.apply(voxels) for normalise, voxels in zip(study.intensity_maps, study.channels, strict=True)]
    classes = np.zeros(study.input_grid.size_zyx, np.int64)
    for number, name in enumerate(config.structure_names, start=1):
        classes[read_mask(subject.masks[name], study, providers)] = number
    return _Region(np.stack(image).astype(np.float32), classes)


class _Patches:
    """Draws patches around voxels of tissue, every voxel of every region with the same probability."""

    def __init__(self, regions: Sequence[_Region], schedule: Schedule) -> None:
        self._regions = regions
        self._tissue = [np.argwhere(region.classes) for region in regions]
        self._size_zyx = np.array(schedule.patch_size_zyx)
        self._count = schedule.patches_per_step
        self._random = np.random.default_rng(schedule.seed)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Images (patch, channel, z, y, x) and classes (patch, z, y, x)."""
        patches = [self._draw_one() for _ in range(self._count)]
        images, classes = (np.stack(arrays) for arrays in zip(*patches, strict=True))
        return torch.from_numpy(images), torch.from_numpy(classes)

    def _draw_one(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        sizes = np.array([len(voxels) for voxels in self._tissue])
        number = self._random.choice(len(sizes), p=sizes / sizes.sum())
        region, voxels = self._regions[number], self._tissue[number]
        start_zyx = voxels[self._random.integers(len(voxels))] - self._size_zyx // 2
        start_zyx = np.clip(start_zyx, 0, region.classes.shape - self._size_zyx)
        z, y, x = (slice(start, start + size) for start, size in zip(start_zyx, self._size_zyx, strict=True))
        return region.image[:, z, y, x], region.classes[z, y, x]


def _save_checkpoint(path: Path, epoch: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    content = io.BytesIO()  # written by Python, since torch hides the operating system's error about a full disk
    torch.save({"epoch": epoch, "state_dict": network.state_dict(), "opt_dict": optimizer.state_dict()}, content)
    path.write_bytes(content.getbuffer())
