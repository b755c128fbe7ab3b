"""Scores patients' images with a model: finds the pipeline first, then the model, then runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from innereye_core.host import Host, installed_host
from innereye_core.model import ScoreRequest, ScoreResult
from innereye_core.progress import Silent

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
    posteriors: str | Path | None = None,
    registry: str | None = None,
    host: Host | None = None,
    progress: Progress | None = None,
) -> ScoreResult:
    """Segment one study.

    Args:
        model: a package folder, a model id such as ``Prostate:892``, or what :func:`load_model` gave.
        images: one file per image channel, in the order of the model's config.
        output: where the segmentation is written: uint8 labels on the grid of the input.
        overwrite: whether an existing output is replaced.
        device: ``auto`` takes CUDA where there is a GPU.
        runtime: name of the runtime; ``auto`` takes the fastest that can run the model.
        posteriors: where 4-D float32 posteriors (x, y, z, class; background first) are written; None: nowhere.
        registry: where model ids are looked up; None: the default registry.
        host: what the plugins offer; None: the installed ones.
        progress: where to say how far it is; None: nowhere.

    Raises:
        MissingPluginError: no plugin for scoring is installed, before anything else is looked at.
        InputError: an image cannot be used, or an output exists.
        IntegrityError: the package is not what its manifest says, or the network gives no finite numbers.
        RegistryError: there is no such model.
        StorageError: the output cannot be written.
    """
    host = host or installed_host()
    scorer = host.scorer()
    from innereye_core.registered_models import LoadedModel, load_model

    loaded = model if isinstance(model, LoadedModel) else load_model(model, registry, host=host, progress=progress)
    request = ScoreRequest(
        model=loaded.files,
        model_name=loaded.title,
        images=tuple(Path(image) for image in images),
        output=Path(output),
        overwrite=overwrite,
        device=device,
        runtime=runtime,
        posteriors=None if posteriors is None else Path(posteriors),
    )
    return scorer.score(request, host, progress or Silent())
