"""``innereye score``: a patient's images become a segmentation. Takes InnerEye's own options too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from innereye_core.cli.options import json_option, registry_option
from innereye_core.cli.output import print_json, print_table, progress
from innereye_core.cli.score_studies import score_studies_and_print, studies_options
from innereye_core.cli.verbosity import verbosity_options
from innereye_core.config import as_plain
from innereye_core.errors import InputError, MissingPluginError, UsageError
from innereye_core.host import Host
from innereye_core.model import ScoreResult
from innereye_core.scoring import DEFAULT_OUTPUT

INNEREYE_IMAGE = "test.nii.gz"


def scoring_options(function: Any) -> Any:
    """Options that ``innereye score`` and a package's score.py share."""
    file = click.Path(path_type=Path)
    for option in reversed(
        (
            click.option("--output", metavar="FILE", type=file, help="Where to write the segmentation."),
            click.option("--overwrite", is_flag=True, help="Replace existing outputs."),
            click.option(
                "--mask", metavar="FILE", type=file, help="Image outside of which (where it is 0) all is background."
            ),
            click.option(
                "--posteriors",
                metavar="FILE|FOLDER/",
                help="Also write the class probabilities: 4-D NIfTI, or a file per structure.",
            ),
            click.option(
                "--uncertainty", metavar="FILE", type=file, help="Also write the entropy of the class probabilities."
            ),
            click.option(
                "--statistics",
                metavar="FILE",
                type=file,
                multiple=True,
                help="Also write numbers per structure, as .json or .csv; may be repeated.",
            ),
            click.option("--preview", metavar="FILE", type=file, help="Also write a picture, as .png."),
            click.option("--report", metavar="FILE", type=file, help="Also write a report to read, as .html."),
            click.option(
                "--device",
                type=click.Choice(["auto", "cpu", "cuda"]),
                default="auto",
                show_default=True,
                help="Where to compute.",
            ),
            click.option(
                "--runtime", metavar="NAME", default="auto", show_default=True, help="What evaluates the network."
            ),
            click.option(
                "--precision",
                type=click.Choice(["fp32", "fp16", "bf16"]),
                default="fp32",
                show_default=True,
                help="What the runtime computes in; below fp32, labels may differ.",
            ),
            click.option(
                "--data_folder",
                metavar="DIR",
                type=file,
                help="InnerEye: where the images are (default: the current folder).",
            ),
            click.option("--model_folder", metavar="DIR", type=file, help="InnerEye: the package; results go there."),
            click.option(
                "--image_files", metavar="A,B", help=f"InnerEye: images in that folder (default: {INNEREYE_IMAGE})."
            ),
            click.option(
                "--result_image_name", metavar="NAME", help=f"InnerEye: name of the result (default: {DEFAULT_OUTPUT})."
            ),
            click.option(
                "--use_gpu", type=bool, default=True, metavar="BOOL", help="InnerEye: False computes on the CPU."
            ),
            click.option(
                "--use_dicom",
                type=bool,
                default=False,
                metavar="BOOL",
                help="InnerEye: input is a zip with a DICOM series.",
            ),
            click.option("--result_zip_dicom_name", metavar="NAME", help="InnerEye: name of the DICOM result."),
            click.option("--model_id", metavar="ID", help="InnerEye: goes into the DICOM result."),
            json_option,
            verbosity_options,
        )
    ):
        function = option(function)
    return function


@click.command(epilog="Example: innereye score Prostate:892 ct.nii.gz --output prostate.nii.gz")
@click.argument("arguments", metavar="MODEL IMAGE...", nargs=-1)
@studies_options
@scoring_options
@registry_option
def score(
    arguments: tuple[str, ...],
    model_folder: Path | None,
    studies: Path | None,
    output_dir: Path | None,
    jobs: str | None,
    resume: bool,
    registry: str | None,
    **options: Any,
) -> None:
    """Segment IMAGE (one file per channel), or many studies, with MODEL, a package folder or a model id."""
    from innereye_core.host import installed_host

    host = installed_host()
    host.scorer()  # what is missing altogether is said before anything else is looked at
    if studies is not None:
        models = arguments if model_folder is None else (str(model_folder), *arguments)
        score_studies_and_print(models, studies, output_dir, jobs, resume, registry, host, options)
    elif output_dir is not None or jobs is not None or resume:
        raise UsageError("--output-dir, --jobs and --resume are for many studies; name these with --studies")
    elif model_folder is not None:
        result_folder, overwrite = innereye_result_folder(model_folder)
        score_and_print(str(model_folder), arguments, result_folder, overwrite, registry, host, options)
    elif arguments:
        score_and_print(arguments[0], arguments[1:], Path(), False, registry, host, options)
    else:
        raise UsageError("name a MODEL: a package folder, or a model id such as Prostate:892")


def innereye_result_folder(model_folder: Path) -> tuple[Path, bool]:
    """Where InnerEye wrote results, and whether over older ones: into the model folder, always.

    Inside a registry, nothing may be written: there it is the current folder, without overwriting.
    """
    inside_registry = (model_folder.resolve().parent.parent / "model.json").is_file()
    return (Path(), False) if inside_registry else (model_folder, True)


def score_and_print(
    model: str,
    images: tuple[str, ...],
    result_folder: Path,
    overwrite_default: bool,
    registry: str | None,
    host: Host,
    options: dict[str, Any],
) -> None:
    """Score with the values of :func:`scoring_options`, and print the result.

    Args:
        model: package folder or model id.
        images: image files; empty: those of ``--image_files`` in ``--data_folder``.
        result_folder: where the result goes if ``--output`` does not say it.
        overwrite_default: whether a segmentation there is replaced without being asked.
        registry: where model ids are looked up.
        host: what the plugins offer.
        options: the options' values.
    """
    from innereye_core.scoring import score as score_study

    if options["use_dicom"]:
        raise MissingPluginError("DICOM input needs a plugin: pip install innereye-dicom")
    if options["device"] == "cuda" and not options["use_gpu"]:
        raise UsageError("--device cuda contradicts --use_gpu False; give one of the two")
    output = options["output"] or result_folder / (options["result_image_name"] or DEFAULT_OUTPUT)
    result = score_study(
        model,
        _images(images, options["image_files"], options["data_folder"]),
        output=output,
        overwrite=options["overwrite"],
        device=options["device"] if options["use_gpu"] else "cpu",
        runtime=options["runtime"],
        precision=options["precision"],
        posteriors=options["posteriors"],
        mask=options["mask"],
        uncertainty=options["uncertainty"],
        statistics=options["statistics"],
        preview=options["preview"],
        report=options["report"],
        replace_segmentation=overwrite_default and options["output"] is None,
        registry=registry,
        host=host,
        progress=progress(),
    )
    for line in result.review:
        click.echo(f"review: {line}", err=True)
    if options["as_json"]:
        print_json(_document(result))
    else:
        _print(result)


def _images(images: tuple[str, ...], image_files: str | None, data_folder: Path | None) -> list[Path]:
    if images and image_files is not None:
        raise UsageError("images are given both as arguments and as --image_files; use one of the two")
    folder = data_folder or Path()
    names = images or [name.strip() for name in (image_files or INNEREYE_IMAGE).split(",")]
    paths = [folder / name for name in names]
    for path, name in zip(paths, names, strict=True):
        if not path.is_file():
            raise InputError(f"File {name} does not exist in data folder {folder.resolve()}")
    return paths


def _document(result: ScoreResult) -> dict[str, Any]:
    return {
        "segmentation": str(result.segmentation),
        "model": result.model,
        "structures": as_plain(result.structures),
        "checks": as_plain(result.checks),
        "seconds": result.seconds,
        "runtime": result.runtime,
        "posteriors": _text(result.posteriors),
        "uncertainty": _text(result.uncertainty),
        "disagreement": _text(result.disagreement),
        "statistics": [str(path) for path in result.statistics],
        "preview": _text(result.preview),
        "report": _text(result.report),
        "review": list(result.review),
    }


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _print(result: ScoreResult) -> None:
    for check in result.checks:
        if check.outcome != "passed":
            click.echo(f"{check.outcome}: {check.name}: {check.detail}", err=True)
    rows = [
        [str(volume.label), name, str(volume.voxels), f"{volume.volume_ml:.2f}"]
        for name, volume in result.structures.items()
    ]
    print_table(["label", "structure", "voxels", "ml"], rows)
    click.echo(str(result.segmentation))
