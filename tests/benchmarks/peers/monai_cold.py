"""One study with MONAI from a cold start to a file on disk: ``python -m benchmarks.peers.monai_cold JOB``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from monai.inferers import sliding_window_inference
from monai.transforms import AsDiscrete, Compose, EnsureChannelFirst, LoadImage, SaveImage, ScaleIntensityRange

from benchmarks.jobs import Job
from benchmarks.network import build, description
from benchmarks.phantom import LEVEL, WINDOW


def score(job: Job) -> None:
    """Read, normalise, segment, write, as MONAI's tutorials do it."""
    network = build(description(Path(job.package))).eval()
    checkpoint = next((Path(job.package) / "checkpoints").iterdir())
    network.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    low, high = LEVEL - WINDOW / 2, LEVEL + WINDOW / 2
    image = Compose([LoadImage(), EnsureChannelFirst(), ScaleIntensityRange(low, high, -1, 1, clip=True)])(job.image)
    # MONAI keeps the axes of the file, x y z; the network has z y x.
    output = Path(job.output)
    with torch.inference_mode():
        scores = sliding_window_inference(
            image.permute(0, 3, 2, 1)[None],
            roi_size=job.crop_size_zyx,
            sw_batch_size=1,
            predictor=network,
            overlap=0.0,
        )
    labels = AsDiscrete(argmax=True)(scores[0]).permute(0, 3, 2, 1)
    save = SaveImage(output_ext=".nii.gz", output_dtype="uint8", resample=False, print_log=False)
    save(labels, filename=str(output.with_name(output.name.removesuffix(".nii.gz"))))


if __name__ == "__main__":
    score(Job.parse(sys.argv[1]))
