"""``innereye demo``: goes through the life of a model, and says what happens."""

from __future__ import annotations

from pathlib import Path

import click

from innereye_core.cli.verbosity import verbosity_options

_PARTS_WITHOUT_FOLDS = 3
"""A single run holds out the front third of the brain."""


@click.command(epilog="Example: innereye demo --output brain")
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default="innereye-demo",
    show_default=True,
    help="New or empty folder for everything that is written.",
)
@click.option(
    "--folds",
    metavar="N",
    type=click.IntRange(2, 5),
    help="Cross-validate with N folds (2 to 5), and deploy their ensemble; takes up to N times as long.",
)
@verbosity_options
def demo(output: Path, folds: int | None) -> int:
    """Train, deploy and score a model on a real brain MRI, in about a minute.

    DIR then holds run/ (the training run, with the package final_model/ in it), registry/, image.nii.gz,
    segmentation.nii.gz and overlay.png.
    """
    from innereye_core.cli.output import progress
    from innereye_core.host import installed_host
    from innereye_demo.output_folder import OutputFolder

    host = installed_host()
    host.scorer()  # what is missing or in the way is said before torch is loaded
    files, ensemble = OutputFolder(output), folds is not None
    files.prepare()

    from innereye_demo.brain import load_brain
    from innereye_demo.life import deploy_run, draw_overlay, score_image, train_run
    from innereye_demo.narration import Narration
    from innereye_demo.regions import splits
    from innereye_demo.training import Schedule

    schedule = Schedule()
    narration = Narration(files)
    brain = load_brain()
    regions = splits(brain, folds) if folds is not None else splits(brain, _PARTS_WITHOUT_FOLDS)[-1:]
    narration.data(brain, regions)
    each = f", in each of {folds} folds" if ensemble else ""
    narration.stage(f"train a small U-Net, {schedule.epochs} epochs{each}")
    train_run(files, brain, regions, schedule, host, progress())
    narration.stage(f"innereye deploy {files.run}{' --ensemble' if ensemble else ''}")
    deployment = deploy_run(files, ensemble, host, progress())
    narration.selections(deployment)
    narration.stage(f"innereye score {deployment.model.id} {files.image} --output {files.segmentation}")
    score_image(files, brain, deployment.model.id, host, progress())
    draw_overlay(files, host)
    narration.end(deployment)
    return 1 if host.failed_observers else 0
