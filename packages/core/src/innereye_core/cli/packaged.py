"""The command line of a package's score.py: the model is the folder, and only the plugins in it are used."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from innereye_core.cli.main import run
from innereye_core.cli.score import innereye_result_folder, score_and_print, scoring_options
from innereye_core.own_package import own_host


def main(folder: Path) -> NoReturn:
    """Score with the package in ``folder``, and exit."""

    @click.command(
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        epilog="Example: python final_model/score.py --data_folder scans --image_files ct.nii.gz",
    )
    @click.argument("images", metavar="[IMAGE]...", nargs=-1)
    @scoring_options
    def score(images: tuple[str, ...], model_folder: Path | None, **options: Any) -> None:
        """Segment IMAGE (one file per channel) with the model in the folder of this file."""
        _score(folder if model_folder is None else model_folder.resolve(), images, options)

    sys.exit(run(score, sys.argv[1:], "score.py"))


def _score(folder: Path, images: tuple[str, ...], options: dict[str, Any]) -> None:
    host = own_host(folder)
    result_folder, overwrite = innereye_result_folder(folder)
    score_and_print(str(folder), images, result_folder, overwrite, None, host, options)
