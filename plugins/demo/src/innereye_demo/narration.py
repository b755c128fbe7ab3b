"""What the demo says on stdout: the data, each stage as it begins, the table of epochs, and the files to look at."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence

import click

from innereye_core.builtin.local_registry import REGISTRY_DIR_VARIABLE
from innereye_core.cli.output import print_table
from innereye_core.cli.select import print_selection
from innereye_core.deployment import Deployment
from innereye_demo.brain import SPACING_MM, Brain
from innereye_demo.output_folder import OutputFolder
from innereye_demo.regions import GAP_SLICES, Split


class Narration:
    """Tells one run of the demo."""

    def __init__(self, output: OutputFolder) -> None:
        """Start the clock."""
        self._output = output
        self._started = time.perf_counter()

    def stage(self, text: str) -> None:
        """Say what begins now, and how many seconds have passed."""
        click.echo(f"\n[{time.perf_counter() - self._started:3.0f} s] {text}")

    def data(self, brain: Brain, splits: Sequence[Split]) -> None:
        """Say what is trained on and what is held out."""
        click.echo(
            f"The brain: the MNI152 T1 template at {SPACING_MM} mm, an average of the MRI of 152 people, with grey\n"
            "and white matter from its probability maps (bundled with nilearn, nothing is downloaded)."
        )
        for number, split in enumerate(splits):
            which = f"Fold {number}: h" if len(splits) > 1 else "H"
            training = " and ".join(slab.range_mm(brain.t1.grid) for slab in split.training)
            held_out = split.held_out.range_mm(brain.t1.grid)
            click.echo(f"{which}eld out for validation: y from {held_out}; trained on: y from {training}.")
        click.echo(
            f"y points to the front of the head; the {GAP_SLICES} slices between the two belong to neither. Left and\n"
            "right are mirror images in this template, so one half would be no test for the other."
        )

    def selections(self, deployment: Deployment) -> None:
        """Show the table of epochs that was selected from, or that of each fold."""
        for child in deployment.children:
            click.echo(f"\nfold {child.run.fold}, {child.model.id}")
            print_selection(child.selections[0])
        if not deployment.children:
            print_selection(deployment.selections[0])

    def end(self, deployment: Deployment) -> None:
        """Say what the figures mean, where the files are, and what to try next."""
        self.stage("done\n")
        click.echo(
            "Dice is measured where the network was not trained, but in the same brain: it shows that the machinery\n"
            "works, not that the model would find the tissues of another person."
        )
        if deployment.children:
            click.echo(
                "The ensemble itself has no Dice here: what one of its members did not see, the others were trained on."
            )
        click.echo()
        print_table(
            ["model", deployment.model.id],
            [
                ["package", str(self._output.run / deployment.package.folder.name)],
                ["segmentation", str(self._output.segmentation)],
                ["overlay", f"{self._output.overlay}  <- look at this picture"],
            ],
        )
        registry, image = (shlex.quote(str(path)) for path in (self._output.registry.absolute(), self._output.image))
        click.echo(
            f"\nNext, try:\n  export {REGISTRY_DIR_VARIABLE}={registry}\n  innereye models show {deployment.model.id}\n"
            f"  innereye score {deployment.model.id} {image} --output again.nii.gz"
        )
