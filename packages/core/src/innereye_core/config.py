"""The model config: what is needed to run a network on an image, as typed, frozen, validated dataclasses.

``model.yaml`` in a run and ``model_inference_config.json`` in a package have these fields. Reading and writing those
files, with line numbers in the errors, is the job of :mod:`innereye_core.config_files`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, model_validator
from pydantic.dataclasses import dataclass

from innereye_core.config_rules import BACKGROUND as BACKGROUND
from innereye_core.config_rules import contradictions

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)

MODEL_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$"
"""Model names that every registry accepts (AzureML's rule, the strictest of those that we know)."""

MAX_STRUCTURES = 255
"""Labels are written as uint8, and 0 is the background."""

_PALETTE: tuple[tuple[int, int, int], ...] = (
    (230, 25, 75),
    (60, 180, 75),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (210, 245, 60),
    (250, 190, 212),
    (0, 128, 128),
    (170, 110, 40),
    (255, 225, 25),
)


def palette_colour(index: int) -> tuple[int, int, int]:
    """Colour (red, green, blue; 0..255) of structure number ``index`` (from 0) where the config names none."""
    return _PALETTE[index % len(_PALETTE)]


def relative_posix_path(value: str) -> str:
    """Return ``value`` unchanged if it is a relative POSIX path that stays inside its folder.

    Raises:
        ValueError: it is absolute, has a drive or a backslash, or leaves the folder through ``..``.
    """
    path = PurePosixPath(value)
    if not path.parts or "\\" in value or "\0" in value or re.match(r"^[A-Za-z]:", value):
        raise ValueError("must be a path inside the folder, relative to it, with forward slashes")
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("leaves the folder; give a path inside it, relative to it")
    return value


def _import_reference(value: str) -> str:
    module, _, attribute = value.partition(":")
    names = [*module.split("."), *attribute.split(".")]
    if not all(name.isidentifier() for name in names):
        raise ValueError("must read package.module:callable, for example yourcode.nets:build_net")
    return value


def _finite(value: JsonValue, place: str = "") -> JsonValue:
    """Refuse NaN and infinity at any depth: JSON, in which a package keeps the value, has neither."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        _finite(part, f"{place}.{key}" if place else str(key))
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place}: {value} is no finite number; give one")
    return value


def _axis_codes(value: str) -> str:
    axes = [next((axis for axis in ("LR", "PA", "SI") if letter in axis), None) for letter in value]
    if None in axes or len(axes) != 3 or len(set(axes)) != 3:
        raise ValueError("must have one letter of each of L/R, P/A, S/I, for example LPS")
    return value


Positive: TypeAlias = Annotated[int, Field(gt=0)]
PositiveFloat: TypeAlias = Annotated[float, Field(gt=0)]
SizeZYX: TypeAlias = tuple[Positive, Positive, Positive]
ByteValue: TypeAlias = Annotated[int, Field(ge=0, le=255)]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\s/\\]([^/\\\n]*[^\s/\\])?$")]
FolderPath: TypeAlias = Annotated[str, AfterValidator(relative_posix_path)]
NumpyPadding: TypeAlias = Literal[
    "edge",
    "zero",
    "none",
    "constant",
    "linear_ramp",
    "maximum",
    "mean",
    "median",
    "minimum",
    "reflect",
    "symmetric",
    "wrap",
]


@dataclass(frozen=True, config=STRICT)
class Structure:
    """One class that the network segments; class numbers follow the order of the list, from 1."""

    name: Name
    """Name, as in dataset.csv and in reports."""
    display_name: str | None = None
    """Name shown to people; the name itself where null."""
    colour: tuple[ByteValue, ByteValue, ByteValue] | None = None
    """Red, green, blue; 0..255. From a fixed palette where null."""
    fill_holes: bool = False
    """Passed on to the DICOM-RT writer."""
    roi_type: str | None = None
    """DICOM RT ROI Interpreted Type, for example ORGAN."""

    @property
    def title(self) -> str:
        """What people are shown: the display name, else the name."""
        return self.display_name or self.name


@dataclass(frozen=True, config=STRICT)
class NetworkConfig:
    """Where the network comes from, and how it is to be fed."""

    factory: Annotated[str, AfterValidator(_import_reference)]
    """package.module:callable that returns the network as a torch module."""
    arguments: Annotated[dict[str, JsonValue], AfterValidator(_finite)] = dataclasses.field(default_factory=dict)
    """Keyword arguments of the factory."""
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    """What turns the network's output into probabilities; none: they already are."""
    size_multiple_zyx: SizeZYX | None = None
    """Every patch size must be a multiple of this; null: the network says it itself, else 1."""
    minimum_size_zyx: SizeZYX | None = None
    """The smallest patch that the network takes; null: the network says it itself, else 1."""
    output_size_zyx: SizeZYX | None = None
    """Size of the network's output for a patch of crop_size_zyx; null: found by running the network."""


@dataclass(frozen=True, config=STRICT)
class InputConfig:
    """What an image must be like before the network may see it."""

    modality: Literal["ct", "mr", "pt"] | None = None
    """Kind of image; null: not checked."""
    spacing_xyz_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """Voxel size in mm along x, y, z; null: any."""
    spacing_tolerance_mm: Annotated[float, Field(ge=0)] = 0.1
    """Largest difference from spacing_xyz_mm per axis, in mm, that is accepted."""
    orientation: Annotated[str, AfterValidator(_axis_codes)] | None = None
    """Where the voxel axes x, y, z point to, for example LPS; null: as stored, unchecked."""
    on_mismatch: Literal["refuse", "resample"] = "refuse"
    """What to do with an image of another spacing."""


def _increasing(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        raise ValueError("the first value must be below the second")
    return value


IncreasingRange: TypeAlias = Annotated[tuple[float, float], AfterValidator(_increasing)]
Percentile: TypeAlias = Annotated[float, Field(ge=0, le=100)]
PercentileRange: TypeAlias = Annotated[tuple[Percentile, Percentile], AfterValidator(_increasing)]


@dataclass(frozen=True, config=STRICT)
class NoNormalization:
    """Values go to the network as they are stored."""

    method: Literal["none"] = "none"


@dataclass(frozen=True, config=STRICT)
class SimpleNorm:
    """Subtract the mean, divide by the standard deviation."""

    method: Literal["simple_norm"]


@dataclass(frozen=True, config=STRICT)
class CTWindow:
    """Map level ± window/2 (Hounsfield units) linearly to the output range, clipping outside."""

    method: Literal["ct_window"]
    level: float
    """Centre of the window, HU."""
    window: PositiveFloat
    """Width of the window, HU."""
    output_range: IncreasingRange = (-1.0, 1.0)


@dataclass(frozen=True, config=STRICT)
class MRIWindow:
    """Window found from each image's own histogram: InnerEye's "MRI Window"."""

    method: Literal["mri_window"]
    sharpen: PositiveFloat = 0.9
    tail: tuple[PositiveFloat, ...] | None = None
    """One value per image channel; null: 1.0 for each."""
    output_range: IncreasingRange = (-1.0, 1.0)


@dataclass(frozen=True, config=STRICT)
class TrimmedNorm:
    """Window from percentiles of each image: InnerEye's "Trimmed Norm"."""

    method: Literal["trimmed_norm"]
    sharpen: PositiveFloat = 0.9
    trim_percentiles: PercentileRange = (1.0, 99.0)
    output_range: IncreasingRange = (-1.0, 1.0)


Normalization: TypeAlias = Annotated[
    NoNormalization | SimpleNorm | CTWindow | MRIWindow | TrimmedNorm, Field(discriminator="method")
]

Stitching: TypeAlias = Literal["average", "crop", "gaussian"]


@dataclass(frozen=True, config=STRICT)
class InferenceConfig:
    """How an image is cut into patches and put together again."""

    crop_size_zyx: SizeZYX
    """Patch size in voxels."""
    stride_zyx: SizeZYX | None = None
    """Distance between patches in voxels; null: the patch size, or the network's output size if that is smaller."""
    batch_size: Positive = 1
    """Patches evaluated at once."""
    padding: NumpyPadding = "edge"
    """How an image is continued beyond its border: edge, zero, none, or another of numpy.pad's modes."""
    stitching: Stitching | None = None
    """average (InnerEye's epoch checkpoints), crop (InnerEye's Lightning checkpoints) or gaussian (nnU-Net, MONAI).
    Null means average, but must be named for Lightning checkpoints."""

    @model_validator(mode="after")
    def _stride_fits_crop(self) -> InferenceConfig:
        stride, crop = self.stride_zyx or self.crop_size_zyx, self.crop_size_zyx
        overlap = [size - step for size, step in zip(crop, stride, strict=True)]
        if min(overlap) < 0:
            raise ValueError(
                f"stride_zyx: {list(stride)} is larger than crop_size_zyx {list(crop)}, so that voxels between patches "
                "would be skipped; use at most the crop size"
            )
        if self.stitching == "crop" and any(width % 2 for width in overlap):
            raise ValueError(
                f"stride_zyx: stitching crop needs an even overlap (crop_size_zyx - stride_zyx), not {overlap}; choose "
                "another stride"
            )
        return self

    @property
    def effective_stitching(self) -> Stitching:
        """The stitching that is used: ``average`` where none is named."""
        return self.stitching or "average"


@dataclass(frozen=True, config=STRICT)
class SummedProbabilityRule:
    """Where first_class + second_class outweigh external_class but neither does alone, the larger of the two wins."""

    first_class: Name
    second_class: Name
    external_class: Name


@dataclass(frozen=True, config=STRICT)
class LargestComponent:
    """Keep the largest face-connected component of a structure."""

    structure: Name
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """Only remove components smaller than this fraction of the structure; null: all but the largest."""


@dataclass(frozen=True, config=STRICT)
class SliceExclusionRule:
    """Two structures that must not share an axial slice: the dominating one keeps it."""

    higher_class: Name
    lower_class: Name
    higher_dominates: bool


@dataclass(frozen=True, config=STRICT)
class PostprocessingConfig:
    """Applied in this order, smoothing before and the rest after the arg max."""

    posterior_smoothing_zyx_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """Gaussian kernel in mm; null: no smoothing."""
    summed_probability_rules: tuple[SummedProbabilityRule, ...] = ()
    largest_component: tuple[LargestComponent, ...] = ()
    slice_exclusion_rules: tuple[SliceExclusionRule, ...] = ()

    def structure_names(self) -> dict[str, str]:
        """Every structure that a rule names, with the place that names it."""
        named: dict[str, str] = {}
        for i, summed in enumerate(self.summed_probability_rules):
            for key in ("first_class", "second_class", "external_class"):
                named.setdefault(getattr(summed, key), f"summed_probability_rules.{i}.{key}")
        for i, component in enumerate(self.largest_component):
            named.setdefault(component.structure, f"largest_component.{i}.structure")
        for i, exclusion in enumerate(self.slice_exclusion_rules):
            for key in ("higher_class", "lower_class"):
                named.setdefault(getattr(exclusion, key), f"slice_exclusion_rules.{i}.{key}")
        return named


@dataclass(frozen=True, config=STRICT)
class EnsembleConfig:
    """How the members of an ensemble are combined."""

    aggregation: Literal["average"] = "average"
    """The mean of the members' posteriors."""


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """What is needed to run a network on an image."""

    schema_version: Literal[1]
    """Version of this format."""
    model_name: Annotated[str, Field(pattern=MODEL_NAME_PATTERN)]
    """Name under which the model is registered."""
    structures: Annotated[tuple[Structure, ...], Field(min_length=1, max_length=MAX_STRUCTURES)]
    """Classes 1, 2, …; class 0 is the background."""
    image_channels: Annotated[tuple[Name, ...], Field(min_length=1)]
    """The order in which images are given."""
    network: NetworkConfig
    inference: InferenceConfig
    input: InputConfig = dataclasses.field(default_factory=InputConfig)
    normalization: Normalization = dataclasses.field(default_factory=NoNormalization)
    postprocessing: PostprocessingConfig = dataclasses.field(default_factory=PostprocessingConfig)
    ensemble: EnsembleConfig = dataclasses.field(default_factory=EnsembleConfig)
    epochs_to_test: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Epochs that are candidates; null: every epoch that has a checkpoint."""
    extra_code_directory: FolderPath | None = None
    """Folder with the network's code, relative to this file."""

    @model_validator(mode="after")
    def _makes_sense(self) -> ModelConfig:
        for contradiction in contradictions(self):
            raise ValueError(contradiction)
        return self

    @property
    def structure_names(self) -> tuple[str, ...]:
        """Names of the classes from 1 on."""
        return tuple(structure.name for structure in self.structures)

    @property
    def class_count(self) -> int:
        """Number of classes, background included."""
        return len(self.structures) + 1

    @property
    def colours(self) -> tuple[tuple[int, int, int], ...]:
        """Colour of each structure (red, green, blue; 0..255), in their order."""
        return tuple(structure.colour or palette_colour(i) for i, structure in enumerate(self.structures))


def as_plain(value: Any) -> Any:
    """Dataclasses, tuples and mappings as the dicts and lists that JSON and YAML know; NaN becomes ``None``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
