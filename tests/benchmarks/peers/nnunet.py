"""nnU-Net v2's predictor, with its own Gaussian, steps and half-precision accumulators, without mirroring."""

from __future__ import annotations

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray

from benchmarks.jobs import Figures, Job
from benchmarks.peers.eager import load_network, read_volume
from benchmarks.phantom import through_window
from benchmarks.stopwatch import Stopwatch


def segment(job: Job) -> tuple[NDArray[np.uint8], Figures]:
    """Labels of the job's volume."""
    volume = read_volume(job)
    network = load_network(job)
    gaussian = job.stitching == "gaussian"
    predictor = nnUNetPredictor(
        tile_step_size=0.5 if gaussian else 1.0,
        use_gaussian=gaussian,
        use_mirroring=False,
        device=torch.device(job.device),
        allow_tqdm=False,
    )
    classes = network.network.output_layer.out_channels
    plans = PlansManager({"label_manager": "LabelManager"})
    predictor.manual_initialization(
        network,
        plans,
        ConfigurationManager({"patch_size": list(job.crop_size_zyx), "architecture": {}}),
        [network.state_dict()],
        {"labels": {"background": 0, **{f"organ{number}": number for number in range(1, classes)}}},
        "nnUNetTrainer",
        None,
    )
    stopwatch = Stopwatch()
    with stopwatch.task():
        posteriors = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(through_window(volume))[None])
        labels = np.asarray(predictor.label_manager.convert_logits_to_segmentation(posteriors)).astype(np.uint8)
    return labels, stopwatch.figures
