"""MONAI's ``sliding_window_inference``."""

from __future__ import annotations

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray

from benchmarks.jobs import Figures, Job
from benchmarks.peers.eager import load_network, read_volume
from benchmarks.phantom import through_window
from benchmarks.stopwatch import Stopwatch

_SIGMA_SCALE = 0.125
"""MONAI's default, and nnU-Net's."""


def overlap_of(job: Job) -> tuple[float, ...]:
    """The overlap that makes MONAI, which rounds patch · (1 − overlap) down, take exactly the job's stride."""
    return tuple(
        1 - (stride + 0.5) / crop if stride < crop else 0.0
        for stride, crop in zip(job.stride_zyx, job.crop_size_zyx, strict=True)
    )


def segment(job: Job) -> tuple[NDArray[np.uint8], Figures]:
    """Labels of the job's volume."""
    volume = read_volume(job)
    network = load_network(job)
    stopwatch = Stopwatch()
    with stopwatch.task(), torch.inference_mode():
        posteriors = sliding_window_inference(
            torch.from_numpy(through_window(volume))[None, None].to(job.device),
            roi_size=job.crop_size_zyx,
            sw_batch_size=1,
            predictor=network,
            overlap=overlap_of(job),
            mode="gaussian" if job.stitching == "gaussian" else "constant",
            sigma_scale=_SIGMA_SCALE,
        )
        labels = torch.argmax(posteriors, dim=1)[0].to(torch.uint8).cpu().numpy()
    return labels, stopwatch.figures
