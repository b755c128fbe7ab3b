"""Which files scoring one study writes, refused before any work where they cannot be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from innereye_core.errors import UsageError
from innereye_core.model import ScoreRequest
from innereye_imaging.geometry import Image, Voxels
from innereye_imaging.output_files import OutputFile, OutputImage, Writer, open_output, open_output_file
from innereye_imaging.pipeline import Segmentation
from innereye_imaging.report import REPORT_SUFFIXES
from innereye_imaging.statistics_files import STATISTICS_SUFFIXES

if TYPE_CHECKING:
    from innereye_core.contract.providers import ImageFormat

_PREVIEW_SUFFIXES = (".png",)
_STRUCTURE_SUFFIX = ".nii.gz"
_LONGEST_NAME = 60
"""Of a structure in a file name, in characters, which take up to four of the 255 bytes that file systems allow."""


@dataclass(frozen=True)
class ScoreOutputs:
    """Files that can be written; None, or none, where they were not asked for."""

    segmentation: OutputImage
    posteriors: OutputImage | None
    """Of all classes."""
    structure_posteriors: tuple[OutputImage, ...]
    """Of each structure."""
    uncertainty: OutputImage | None
    disagreement: OutputImage | None
    """Only for an ensemble."""
    statistics: tuple[OutputFile, ...]
    preview: OutputFile | None
    report: OutputFile | None

    @property
    def needs_posteriors(self) -> bool:
        """Whether posteriors are written."""
        return self.posteriors is not None or bool(self.structure_posteriors)

    def images(
        self, result: Segmentation, affine: NDArray[np.float64], orientation_known: bool
    ) -> Iterator[tuple[OutputFile, Writer]]:
        """The image files, each with what writes it."""
        voxels: list[tuple[OutputImage | None, Voxels | None]] = [(self.segmentation, result.labels)]
        if result.posteriors is not None:
            voxels += [(self.posteriors, result.posteriors)]
            voxels += zip(self.structure_posteriors, result.posteriors[1:], strict=False)
        if result.uncertainty is not None:
            voxels += [(self.uncertainty, result.uncertainty.entropy)]
            voxels += [(self.disagreement, result.uncertainty.disagreement)]
        for output, values in voxels:
            if output is not None and values is not None:
                yield output.holding(Image(values, affine, orientation_known))

    def named(self) -> Iterator[tuple[str, Path]]:
        """What each file is, and where."""
        optional = (
            ("segmentation", self.segmentation),
            ("posteriors", self.posteriors),
            *(("posteriors", output) for output in self.structure_posteriors),
            ("uncertainty", self.uncertainty),
            ("disagreement", self.disagreement),
            *(("statistics", output) for output in self.statistics),
            ("preview", self.preview),
            ("report", self.report),
        )
        return ((what, output.path) for what, output in optional if output is not None)


def open_outputs(request: ScoreRequest, formats: Sequence[ImageFormat]) -> ScoreOutputs:
    """Make sure, before any long work, that everything that is asked for can be written.

    Raises:
        InputError: a file exists and may not be overwritten, or its folder does not exist.
        UsageError: a file has an ending that says nothing, or cannot hold what it shall; it is an input, or two outputs
            in one.
        StorageError: a folder is not writable or the disk is full.
    """

    def image(path: Path | None, dimensions: int = 3) -> OutputImage | None:
        return None if path is None else open_output(path, formats, request.overwrite, dimensions, np.float32)

    def other(path: Path | None, suffixes: Sequence[str]) -> OutputFile | None:
        return None if path is None else open_output_file(path, suffixes, request.overwrite)

    uncertainty = image(request.uncertainty)
    beside = _beside(uncertainty) if uncertainty is not None and len(request.model.checkpoints) > 1 else None
    outputs = ScoreOutputs(
        segmentation=open_output(request.output, formats, request.overwrite or request.replace_segmentation),
        posteriors=image(request.posteriors, dimensions=4),
        structure_posteriors=_in_folder(request, formats),
        uncertainty=uncertainty,
        disagreement=image(beside),
        statistics=tuple(open_output_file(path, STATISTICS_SUFFIXES, request.overwrite) for path in request.statistics),
        preview=other(request.preview, _PREVIEW_SUFFIXES),
        report=other(request.report, REPORT_SUFFIXES),
    )
    _refuse_clashes(request, outputs)
    return outputs


def _in_folder(request: ScoreRequest, formats: Sequence[ImageFormat]) -> tuple[OutputImage, ...]:
    folder = request.posteriors_folder
    if folder is None:
        return ()
    return tuple(
        open_output(folder / name, formats, request.overwrite, dtype=np.float32, makes_folder=not folder.exists())
        for name in structure_file_names(request.model.config.structure_names)
    )


def structure_file_names(structure_names: Sequence[str]) -> list[str]:
    """A file name for each structure: its own, without what file systems or shells could mind, and never one twice."""
    names: list[str] = []
    taken: set[str] = set()
    for number, structure in enumerate(structure_names, start=1):
        name = re.sub(r"[^\w.+-]", "_", structure)[:_LONGEST_NAME]
        if name.startswith((".", "-")):
            name = f"_{name[1:]}"
        while name.casefold() in taken:  # as some file systems compare names
            name = f"{name}_{number}"
        taken.add(name.casefold())
        names.append(name + _STRUCTURE_SUFFIX)
    return names


def _beside(uncertainty: OutputImage) -> Path:
    stem = uncertainty.path.name.removesuffix(uncertainty.suffix)
    return uncertainty.path.with_name(f"{stem}_disagreement{uncertainty.suffix}")


def _refuse_clashes(request: ScoreRequest, outputs: ScoreOutputs) -> None:
    """An output must not replace an input or another output."""
    what_is_at: dict[Path, str] = {}
    for what, path in outputs.named():
        place = path.resolve()
        if place in what_is_at:
            both = f"{what_is_at[place].capitalize()} and {what}"
            raise UsageError(f"{both} would both be written to {path}; name two files")
        what_is_at[place] = what
    for image in (*request.images, request.mask):
        if image is not None and image.resolve() in what_is_at:
            raise UsageError(f"The output {image} is also an input image, which would be lost; choose another output")
