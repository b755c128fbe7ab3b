"""The stages of the demo: train a run, deploy it, score with it, draw what came out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core import RegistrationOptions, deploy, score
from innereye_core.builtin.local_registry import REGISTRY_DIR_VARIABLE
from innereye_core.candidates import CHECKPOINT_FOLDER
from innereye_core.config_files import read_model_config
from innereye_core.publishing import publish, staged_folder, storage_errors
from innereye_demo.output_folder import OutputFolder
from innereye_demo.run_folder import MODEL_CONFIG, write_dataset, write_settings
from innereye_demo.training import Schedule, train
from innereye_imaging.formats import read_image
from innereye_imaging.output_files import open_output, write_images
from innereye_imaging.preview import write_preview

if TYPE_CHECKING:
    from innereye_core.contract.providers import Progress
    from innereye_core.deployment import Deployment
    from innereye_core.host import Host
    from innereye_core.model import ScoreResult
    from innereye_demo.brain import Brain
    from innereye_demo.regions import Split

_REGISTRY = "local"


def train_run(
    output: OutputFolder, brain: Brain, splits: Sequence[Split], schedule: Schedule, host: Host, progress: Progress
) -> None:
    """Train on each split, and write the run, which appears when it is complete.

    One split is a run of its own; several are the folds 0, 1, … of a parent run.

    Raises:
        StorageError: the disk is full or not writable.
    """
    config = read_model_config(MODEL_CONFIG)
    with (
        storage_errors(str(output.run)),
        staged_folder(output.run) as staged,
        progress.track("Training", schedule.steps * len(splits)) as advance,
    ):
        write_settings(staged)
        for number, split in enumerate(splits):
            folder = staged if len(splits) == 1 else staged / str(number)
            checkpoints = folder / CHECKPOINT_FOLDER
            checkpoints.mkdir(parents=True)
            subjects = write_dataset(folder, brain, split)
            training = [subject for subject in subjects if subject.split == "train"]
            train(training, config, checkpoints, host, schedule, advance)
        publish(staged, output.run, replace=False)


def deploy_run(output: OutputFolder, ensemble: bool, host: Host, progress: Progress) -> Deployment:
    """Do what ``innereye deploy`` does, with the run and the registry of the demo."""
    with use_registry(output.registry):
        options = RegistrationOptions(registry=_REGISTRY)
        return deploy(output.run, registration=options, ensemble=ensemble, host=host, progress=progress)


def score_image(output: OutputFolder, brain: Brain, model_id: str, host: Host, progress: Progress) -> ScoreResult:
    """Write the whole brain to a file, and do what ``innereye score`` does with it."""
    image = open_output(output.image, host.image_formats(), overwrite=False)
    write_images([(image, brain.t1)])
    with use_registry(output.registry):
        return score(
            model_id, [output.image], output=output.segmentation, registry=_REGISTRY, host=host, progress=progress
        )


def draw_overlay(output: OutputFolder, host: Host) -> None:
    """Draw the segmentation on the image, as they are on disk.

    Raises:
        StorageError: the disk is full or not writable.
    """
    image, segmentation = (read_image(path, host.image_formats()) for path in (output.image, output.segmentation))
    with storage_errors(str(output.overlay)), staged_folder(output.overlay) as staged:
        picture = staged / output.overlay.name
        write_preview(picture, image, segmentation.voxels, read_model_config(MODEL_CONFIG))
        picture.replace(output.overlay)


@contextlib.contextmanager
def use_registry(folder: Path) -> Iterator[None]:
    """Let the local registry be in ``folder`` for a while."""
    before = os.environ.get(REGISTRY_DIR_VARIABLE)
    os.environ[REGISTRY_DIR_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[REGISTRY_DIR_VARIABLE]
        else:
            os.environ[REGISTRY_DIR_VARIABLE] = before
