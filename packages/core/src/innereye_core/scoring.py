"""Scores patients' images with a model: finds the pipeline first, then the model, then runs it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from innereye_core.host import Host, installed_host
from innereye_core.model import ScoreRequest, ScoreResult
from innereye_core.progress import Silent
from innereye_core.publishing import storage_errors

if TYPE_CHECKING:
    from innereye_core.contract.providers import Progress
    from innereye_core.registered_models import LoadedModel

DEFAULT_OUTPUT = "segmentation.nii.gz"


def score(
    model: str | Path | LoadedModel,
    images: Sequence[str | Path],
    *,
    output: str | Path = DEFAULT_OUTPUT,
    overwrite: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    runtime: str = "auto",
    precision: str = "fp32",
    posteriors: str | Path | None = None,
    mask: str | Path | None = None,
    uncertainty: str | Path | None = None,
    statistics: str | Path | Sequence[str | Path] = (),
    preview: str | Path | None = None,
    report: str | Path | None = None,
    replace_segmentation: bool = False,
    registry: str | None = None,
    host: Host | None = None,
    progress: Progress | None = None,
) -> ScoreResult:
    """Segment one study.

    Args:
        model: a package folder, a model id such as ``Prostate:892``, or what :func:`load_model` gave.
        images: one file per image channel, in the order of the model's config.
        output: where the segmentation is written: uint8 labels on the grid of the input.
        overwrite: whether existing outputs are replaced.
        device: ``auto`` takes CUDA where there is a GPU.
        runtime: name of the runtime; ``auto`` takes the fastest that can run the model.
        precision: ``fp32``, or ``fp16`` or ``bf16`` where a runtime can; labels may then differ from float32, and how
            much they did when the model was exported is among the checks.
        posteriors: where float32 posteriors are written: a file for all classes, 4-D (x, y, z, class), background
            first; or a folder, which is there or ends with a slash, for a file per structure. None: nowhere.
        mask: an image on the grid of the others, outside of which (where it is 0) everything is background.
        uncertainty: where the normalised entropy of the posteriors is written, float32 from 0 (sure) to 1; with an
            ensemble also, in a file beside it that is named ``…_disagreement``, how far its members disagree.
        statistics: where the statistics of each structure are written: one or more of ``*.json``, ``*.csv``.
        preview: where a picture with three planes is written, ``*.png``.
        report: where a report for people is written, ``*.html``.
        replace_segmentation: whether an existing segmentation is replaced even if no other output is.
        registry: where model ids are looked up; None: the default registry.
        host: what the plugins offer; None: the installed ones.
        progress: where to say how far it is; None: nowhere.

    Raises:
        MissingPluginError: no plugin for scoring is installed, before anything else is looked at.
        InputError: an image cannot be used, or an output exists.
        UsageError: outputs contradict each other or the images, or end in something unknown.
        IntegrityError: the package is not what its manifest says, or the network gives no finite numbers.
        RegistryError: there is no such model.
        StorageError: the output cannot be written.
    """
    host = host or installed_host()
    scorer = host.scorer()
    from innereye_core.registered_models import LoadedModel, load_model

    loaded = model if isinstance(model, LoadedModel) else load_model(model, registry, host=host, progress=progress)
    one_file = posteriors is None or not _names_folder(posteriors)
    request = ScoreRequest(
        model=loaded.files,
        model_name=loaded.title,
        images=tuple(Path(image) for image in images),
        output=Path(output),
        overwrite=overwrite,
        device=device,
        runtime=runtime,
        precision=precision,
        posteriors=_path(posteriors) if one_file else None,
        posteriors_folder=None if one_file else _path(posteriors),
        mask=_path(mask),
        uncertainty=_path(uncertainty),
        statistics=tuple(Path(file) for file in ([statistics] if isinstance(statistics, (str, Path)) else statistics)),
        preview=_path(preview),
        report=_path(report),
        replace_segmentation=replace_segmentation,
    )
    return scorer.score(request, host, progress or Silent())


def _names_folder(path: str | Path) -> bool:
    with storage_errors(str(path)):
        return str(path).endswith(("/", os.sep)) or Path(path).is_dir()


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
