"""``innereye evaluate``: how well a packaged model does on subjects whose masks are known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from innereye_core.cli.options import json_option, registry_option
from innereye_core.cli.output import print_json, print_table, progress
from innereye_core.cli.verbosity import verbosity_options

if TYPE_CHECKING:
    from innereye_imaging.dataset import SplitName
    from innereye_imaging.evaluating import Evaluation
    from innereye_imaging.evaluation_files import EvaluationReport


@click.command(epilog="Example: innereye evaluate Prostate:892 --dataset dataset.csv --baseline Prostate:891")
@click.argument("model")
@click.option(
    "--dataset",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="The dataset.csv with images and masks.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="test",
    show_default=True,
    help="The subjects to score.",
)
@click.option("--baseline", metavar="MODEL", help="Another model, to compare with on the same subjects.")
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default="evaluation",
    show_default=True,
    help="Folder for the results; made if missing.",
)
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier evaluation there.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute.",
)
@click.option("--runtime", metavar="NAME", default="auto", show_default=True, help="What evaluates the network.")
@registry_option
@json_option
@verbosity_options
def evaluate(
    model: str,
    dataset: Path,
    split: SplitName,
    baseline: str | None,
    output: Path,
    overwrite: bool,
    device: Literal["auto", "cpu", "cuda"],
    runtime: str,
    registry: str | None,
    as_json: bool,
) -> None:
    """Score the subjects of a dataset with MODEL, and measure how well it agrees with their masks."""
    from innereye_core.errors import InputError, UsageError
    from innereye_core.host import installed_host
    from innereye_core.registered_models import load_model
    from innereye_imaging.evaluating import evaluate as run_evaluation
    from innereye_imaging.evaluating import prepare_evaluation
    from innereye_imaging.evaluation_files import EvaluationReport, try_output_folder, write_report

    host, shown = installed_host(), progress()
    try_output_folder(output, [dataset], overwrite=overwrite)
    models = [load_model(name, registry, host=host, progress=shown) for name in (model, baseline) if name is not None]
    tasks = [prepare_evaluation(one, dataset, split, host, device=device, runtime=runtime) for one in models]
    if not set(tasks[0].config.structure_names) & set(tasks[-1].config.structure_names):
        raise UsageError(f"--baseline {baseline}: has no structure that {model} has, so there is nothing to compare")
    evaluations = [run_evaluation(task, host, shown) for task in tasks]
    report = EvaluationReport(dataset, split, evaluations[0], evaluations[1] if baseline is not None else None)
    files = write_report(output, report)
    if as_json:
        print_json({**report.document(), "files": [str(path) for path in files]})
    else:
        _print(report, files)
    failed = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation.failures))
    if failed:
        are = (
            "1 subject could not be scored, and is"
            if len(failed) == 1
            else f"{len(failed)} subjects could not be scored, and are"
        )
        raise InputError(
            f"{are} missing from the results: {', '.join(failed)}; mend the files, or the rows of {dataset}"
        )


def _print(report: EvaluationReport, files: tuple[Path, ...]) -> None:
    _print_summary("model", report.evaluation)
    if report.baseline is not None:
        click.echo()
        _print_summary("baseline", report.baseline)
        click.echo()
        rows = [
            [
                name,
                str(found.pairs),
                _shown(found.median_difference, "+.4f"),
                _shown(found.p_value, ".4g"),
                found.remark,
            ]
            for name, found in report.comparison.items()
        ]
        print_table(["structure", "pairs", "median Dice difference", "p (Wilcoxon)", "remark"], rows)
    for path in files[::-1]:
        click.echo(str(path))


def _print_summary(role: str, evaluation: Evaluation) -> None:
    from innereye_imaging.evaluation_statistics import METRICS, summarize

    scored = len(evaluation.subjects)
    click.echo(f"{role} {evaluation.model}: {scored} of {scored + len(evaluation.failures)} subjects")
    rows = []
    for name, by_metric in summarize(evaluation).items():
        for metric, found in by_metric.items():
            format = ".4f" if metric == "dice" else ".2f"
            numbers = (found.mean, found.std, found.median, found.minimum, found.maximum)
            rows.append([name, METRICS[metric], str(found.subjects), *(_shown(number, format) for number in numbers)])
    print_table(["structure", "metric", "subjects", "mean", "std", "median", "min", "max"], rows)
    for subject, problem in evaluation.failures.items():
        click.echo(f"not scored: {subject}: {problem}")


def _shown(number: float, format: str) -> str:
    return "–" if math.isnan(number) else f"{number:{format}}"
