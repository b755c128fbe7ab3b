"""InnerEye's way to segment a volume, on torchio's grid sampler and aggregator.

``crop`` is the later InnerEye: pad with zeros up to the network's size multiple, the odd voxel before; let torchio pad
by half of the overlap, cut patches of which the last is aligned to the end, and keep their centres. ``average`` is the
earlier one: pad as far as the stride grid needs, the odd voxel after; average where patches overlap.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torchio
from numpy.typing import NDArray

from benchmarks.jobs import Figures, Job
from benchmarks.peers.eager import load_network, read_volume
from benchmarks.phantom import through_window
from benchmarks.stopwatch import Stopwatch

Widths = tuple[int, int]


def segment(job: Job) -> tuple[NDArray[np.uint8], Figures]:
    """Labels of the job's volume."""
    volume = read_volume(job)
    network = load_network(job)
    stopwatch = Stopwatch()
    with stopwatch.task(), torch.inference_mode():
        normalized = through_window(volume)
        if job.stitching == "crop":
            widths = [
                _up_to_multiple(size, m)
                for size, m in zip(volume.shape, network.network.size_multiple_zyx, strict=True)
            ]
            padded, padding_mode, overlap_mode = np.pad(normalized, widths), "edge", "crop"
        else:
            widths = [
                _up_to_grid(*sizes) for sizes in zip(volume.shape, job.crop_size_zyx, job.stride_zyx, strict=True)
            ]
            padded, padding_mode, overlap_mode = np.pad(normalized, widths, mode="edge"), None, "average"
        subject = torchio.Subject(image=torchio.ScalarImage(tensor=torch.from_numpy(padded)[None]))
        overlap = tuple(np.subtract(job.crop_size_zyx, job.stride_zyx).tolist())
        sampler = torchio.GridSampler(subject, job.crop_size_zyx, overlap, padding_mode=padding_mode)
        aggregator = torchio.GridAggregator(sampler, overlap_mode=overlap_mode)
        for patch in torchio.SubjectsLoader(sampler, batch_size=1):
            posteriors = network(patch["image"][torchio.DATA].float().to(job.device))
            aggregator.add_batch(posteriors, patch[torchio.LOCATION])
        inside = tuple(slice(before, before + size) for (before, _), size in zip(widths, volume.shape, strict=True))
        whole = aggregator.get_output_tensor().numpy()[(slice(None), *inside)]
        labels = np.argmax(whole, axis=0).astype(np.uint8)
    return labels, stopwatch.figures


def _up_to_multiple(size: int, multiple: int) -> Widths:
    missing = -size % multiple
    return math.ceil(missing / 2), missing // 2


def _up_to_grid(size: int, crop: int, stride: int) -> Widths:
    missing = crop + max(0, math.ceil((size - crop) / stride)) * stride - size
    return missing // 2, math.ceil(missing / 2)
