"""``innereye score MODEL --studies …``: many studies with one model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from innereye_core.cli.output import print_json, print_table, progress
from innereye_core.config import as_plain
from innereye_core.errors import InputError, UsageError
from innereye_core.host import Host
from innereye_core.scoring import DEFAULT_OUTPUT

_ONE_STUDY = ("mask", "data_folder", "image_files", "result_image_name", "result_zip_dicom_name", "model_id")
_OUTPUTS = ("output", "posteriors", "uncertainty", "statistics", "preview", "report")
_SHOWN_FAILURES = 5


def studies_options(function: Any) -> Any:
    """Options for many studies."""
    path = click.Path(path_type=Path)
    options: tuple[Callable[[Any], Any], ...] = (
        click.option(
            "--studies",
            metavar="FOLDER|CSV",
            type=path,
            help="Score many studies: folders with a file per channel, or the rows of a CSV file.",
        ),
        click.option("--output-dir", metavar="DIR", type=path, help="With --studies: a folder of results per study."),
        click.option(
            "--jobs",
            metavar="N|dask|ADDRESS",
            help="With --studies: processes on this machine, a Dask cluster here, or the one at tcp://HOST:PORT.",
        ),
        click.option("--resume", is_flag=True, help="With --studies: keep the results that are there, make the rest."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def score_studies_and_print(
    arguments: tuple[str, ...],
    studies: Path,
    output_dir: Path | None,
    jobs: str | None,
    resume: bool,
    registry: str | None,
    host: Host,
    options: dict[str, Any],
) -> None:
    """Score every study, print what became of them, and end with exit code 3 if one could not be scored.

    Args:
        arguments: the model, alone.
        studies: folder or CSV file.
        output_dir: where the results go.
        jobs: what an executor accepts; None: this process.
        resume: whether to keep what is done.
        registry: where model ids are looked up.
        host: what the plugins offer.
        options: the values of :func:`innereye_core.cli.score.scoring_options`; outputs name files in the folder of each
            study.
    """
    from innereye_core.scoring_studies import DEFAULT_JOBS, SUMMARY_FILE, score_studies

    if len(arguments) != 1:
        raise UsageError("with --studies, name the MODEL and no images")
    if output_dir is None:
        raise UsageError("--studies needs --output-dir, the folder for the results")
    given = [name for name in _ONE_STUDY if options[name] is not None] + ["use_dicom"] * options["use_dicom"]
    if given:
        raise UsageError(f"--{given[0]} is for one study, and --studies for many; use one of the two")
    if options["device"] == "cuda" and not options["use_gpu"]:
        raise UsageError("--device cuda contradicts --use_gpu False; give one of the two")
    outcomes = score_studies(
        arguments[0],
        studies,
        output_dir,
        _outputs(options),
        jobs=jobs or DEFAULT_JOBS,
        device=options["device"] if options["use_gpu"] else "cpu",
        runtime=options["runtime"],
        precision=options["precision"],
        resume=resume,
        overwrite=options["overwrite"],
        registry=registry,
        host=host,
        progress=progress(),
    )
    summary = output_dir / SUMMARY_FILE
    for outcome in outcomes:
        for line in outcome.review:
            click.echo(f"review: {outcome.study}: {line}", err=True)
    if options["as_json"]:
        print_json({"summary": str(summary), "studies": as_plain(outcomes)})
    else:
        counts = Counter(outcome.status for outcome in outcomes)
        print_table(["status", "studies"], [[status, str(counts[status])] for status in sorted(counts)])
        click.echo(str(summary))
    failed = [outcome.study for outcome in outcomes if outcome.error is not None]
    if failed:
        more = f" and {len(failed) - _SHOWN_FAILURES} more" if len(failed) > _SHOWN_FAILURES else ""
        names = ", ".join(failed[:_SHOWN_FAILURES]) + more
        raise InputError(f"{len(failed)} of {len(outcomes)} studies could not be scored: {names}; {summary} says why")


def _outputs(options: dict[str, Any]) -> dict[str, str | tuple[str, ...]]:
    """Argument of ``score`` → file in the folder of each study."""
    from innereye_core.scoring_studies import RESULT_FILE

    outputs: dict[str, str | tuple[str, ...]] = {}
    for name in _OUTPUTS:
        value = options[name]
        if not value:
            continue
        names = tuple(str(part) for part in value) if isinstance(value, tuple) else (str(value),)
        for text in names:
            if text.rstrip("/") == RESULT_FILE:
                raise UsageError(
                    f"--{name} {text}: this file says what the results were made from; choose another name"
                )
            if Path(text).name != text.rstrip("/") or text in (".", ".."):
                raise UsageError(
                    f"--{name} {text}: with --studies, name a file in the folder of each study, without a path"
                )
        outputs[name] = names if isinstance(value, tuple) else names[0]
    return {"output": DEFAULT_OUTPUT, **outputs}
