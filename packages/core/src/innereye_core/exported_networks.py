"""What a package says about the exported form of its networks, for every runtime that reads it.

``onnx/export.json`` lies beside the exported files. It says which file belongs to which checkpoint, which patches they
take, and how closely each runtime agreed with eager float32 PyTorch when the model was exported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from innereye_core.errors import InputError
from innereye_core.manifest import read_record
from innereye_core.model import Check, ModelFiles, NetworkGeometry, SizeZYX

if TYPE_CHECKING:
    from innereye_core.config import ModelConfig

EXPORT_FOLDER: Final = "onnx"
EXPORT_FILE: Final = f"{EXPORT_FOLDER}/export.json"

IMAGE: Final = "image"
SCORES: Final = "scores"
"""Names of input and output in the exported files."""

FLOAT32: Final = "fp32"
"""The precision that every runtime computes in unless it is told otherwise."""

THREADS_VARIABLE: Final = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class ExportedFile:
    """The exported form of one checkpoint, in one precision."""

    path: str
    """In the package (relative, POSIX)."""
    checkpoint: str
    """The checkpoint that it was made of (relative, POSIX)."""
    precision: str
    """Of its weights: ``fp32``, ``fp16``."""


@dataclass(frozen=True)
class Agreement:
    """How far a runtime was from eager float32 PyTorch on a phantom, when the model was exported."""

    runtime: str
    library: str
    """What computed, with its version."""
    precision: str
    """What it computed in: ``fp32``, ``fp16``, ``bf16``."""
    labels_differing: float
    """Fraction of the voxels whose most probable class is another one."""
    largest_posterior_difference: float
    voxels: int
    """Number of voxels that were compared, over all members of an ensemble."""


@dataclass(frozen=True)
class Export:
    """The content of ``onnx/export.json``."""

    opset: int
    """Version of the ONNX operators that the files are made of."""
    smallest_patch_zyx: SizeZYX
    """The smallest patch that the files take."""
    only_patch_size: bool
    """Whether they take no other size. Else they take every larger one that the network takes."""
    files: tuple[ExportedFile, ...]
    agreements: tuple[Agreement, ...]
    versions: Mapping[str, str]
    """Distributions that took part in the export."""
    source_digest: str
    """Digest of the package that was exported."""


@dataclass(frozen=True)
class ExportedNetworks:
    """The exported form of a model as one runtime loads it."""

    files: tuple[Path, ...]
    """One per checkpoint, in their order."""
    geometry: NetworkGeometry
    crop_size_zyx: SizeZYX
    smallest_patch_zyx: SizeZYX
    """The smallest patch that the files take."""
    only_patch_size: bool
    """Whether they take no other size. Else they take every larger one that the network takes."""
    precision: str
    """What the runtime computes in."""
    agreement: Agreement | None
    """What was measured for this runtime and precision when the model was exported."""

    def check_patches(self, shape: Sequence[int]) -> None:
        """Make sure that the files take patches of this shape (batch, channel, z, y, x).

        Raises:
            InputError: they were exported for other sizes.
        """
        size, smallest = tuple(shape[2:]), self.smallest_patch_zyx
        too_small = any(found < least for found, least in zip(size, smallest, strict=True))
        if too_small or (self.only_patch_size and size != smallest):
            which = "only" if self.only_patch_size else "at least"
            raise InputError(
                f"The exported network takes patches of {which} {list(smallest)} voxels (z, y, x), and this image "
                f"makes patches of {list(size)}; use --runtime torch for it"
            )

    def check_scores(self, patches: Sequence[int], scores: Sequence[int]) -> None:
        """Make sure that scores (batch, class, z', y', x') have the size that follows from that of the patches.

        Raises:
            InputError: they do not.
        """
        margins = zip(patches[2:], self.crop_size_zyx, self.geometry.output_size_zyx, strict=True)
        expected = [size - (crop - output) for size, crop, output in margins]
        if list(scores[2:]) != expected or scores[0] != patches[0]:
            raise InputError(
                f"{self.files[0]}: gives scores of shape {list(scores)} for patches of shape {list(patches)}, not "
                f"{expected} (z, y, x); export the model again"
            )

    def precision_check(self) -> Check:
        """What a reader of a result has to know about the precision that it was computed in."""
        if self.precision == FLOAT32:
            return Check("network precision", "passed", FLOAT32)
        if self.agreement is None:
            return Check(
                "network precision",
                "warning",
                f"{self.precision}; how many labels differ from float32's was never measured",
            )
        return Check(
            "network precision",
            "warning",
            f"{self.precision}; {self.agreement.labels_differing:.3%} of the labels of a phantom differed from "
            "float32's when the model was exported",
        )


def find_exported(
    model: ModelFiles, runtime: str, precision: str = FLOAT32, *, stored: str = FLOAT32
) -> ExportedNetworks | None:
    """The exported form of a model, or None where there is none that this runtime can use.

    Args:
        model: of a package; a training run has none.
        runtime: name of the runtime.
        precision: what it computes in.
        stored: precision of the weights in the files that it reads for that.

    Raises:
        IntegrityError: ``onnx/export.json`` is damaged.
    """
    if model.folder is None or not (model.folder / EXPORT_FILE).is_file():
        return None
    export = read_record(model.folder / EXPORT_FILE, Export)
    paths = {file.checkpoint: model.folder / file.path for file in export.files if file.precision == stored}
    checkpoints = [path.relative_to(model.folder).as_posix() for path in model.checkpoints]
    geometry = settled_geometry(model.config)
    crop = model.config.inference.crop_size_zyx
    smallest = export.smallest_patch_zyx
    if geometry is None or not paths.keys() >= set(checkpoints) or (export.only_patch_size and smallest != crop):
        return None
    measured = [found for found in export.agreements if (found.runtime, found.precision) == (runtime, precision)]
    return ExportedNetworks(
        files=tuple(paths[checkpoint] for checkpoint in checkpoints),
        geometry=geometry,
        crop_size_zyx=crop,
        smallest_patch_zyx=smallest,
        only_patch_size=export.only_patch_size,
        precision=precision,
        agreement=measured[0] if measured else None,
    )


def settled_geometry(config: ModelConfig) -> NetworkGeometry | None:
    """What the network asks of its patches, where the config says all of it, as a package's does."""
    network = config.network
    multiple, minimum, output = network.size_multiple_zyx, network.minimum_size_zyx, network.output_size_zyx
    if multiple is None or minimum is None or output is None:
        return None
    return NetworkGeometry(multiple, minimum, output)


def threads_asked_for() -> int | None:
    """How many threads a process shall compute with: ``OMP_NUM_THREADS``, which not every runtime looks at by itself.

    Returns:
        None where nobody said it; a runtime then uses the processors that the process may run on.
    """
    value = os.environ.get(THREADS_VARIABLE, "")
    return int(value) if value.isascii() and value.isdigit() and int(value) > 0 else None
