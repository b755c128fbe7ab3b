"""Combinations of settings that make no sense: each is named with its key, its value and the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from innereye_core.config import ModelConfig, PostprocessingConfig

BACKGROUND = "background"

_OWN_NETWORKS = tuple(f"innereye_segmentation.networks:{name}" for name in ("UNet3D", "UNet2D", "Basic"))
"""Factories whose arguments ``input_channels`` and ``classes`` are known (the design's §5)."""


def contradictions(config: ModelConfig) -> Iterator[str]:
    """What a person wrote that cannot be meant together, as ``key: message``."""
    yield from _names(config)
    yield from _rules_on_labels(config.postprocessing, config.structure_names)
    yield from _settings_of_others(config)


def network_contradictions(config: ModelConfig) -> Iterator[str]:
    """What a file says that does not fit what it says about the network, as ``key: message``.

    This is for files: where they do not say it, the network is asked before an image is segmented, and the same is
    refused then.
    """
    yield from _own_network(config)
    yield from geometry_contradictions(config)


def geometry_contradictions(config: ModelConfig) -> Iterator[str]:
    """Settings of inference that do not fit one another or the network's geometry, as ``key: message``."""
    network, inference = config.network, config.inference
    crop, output = inference.crop_size_zyx, network.output_size_zyx
    multiple, minimum = network.size_multiple_zyx, network.minimum_size_zyx
    if multiple and any(size % factor for size, factor in zip(crop, multiple, strict=True)):
        yield (
            f"inference.crop_size_zyx: {list(crop)} is no multiple of network.size_multiple_zyx {list(multiple)}; "
            "change it"
        )
    if minimum and _any_larger(minimum, crop):
        yield f"inference.crop_size_zyx: {list(crop)} is below network.minimum_size_zyx {list(minimum)}; enlarge it"
    if output and _any_larger(output, crop):
        yield (
            f"network.output_size_zyx: {list(output)} is larger than inference.crop_size_zyx {list(crop)}, of which it "
            "is the output; set it to null to have it found"
        )
    stride = inference.stride_zyx or output or crop
    if output and _any_larger(stride, output):
        yield (
            f"inference.stride_zyx: {list(stride)} is larger than network.output_size_zyx {list(output)}, so that "
            "voxels would be skipped; use at most the output size"
        )
    overlap = [size - step for size, step in zip(crop, stride, strict=True)]
    if inference.stitching == "crop" and any(width % 2 for width in overlap):
        yield (
            f"inference.stride_zyx: {list(stride)} leaves an overlap of {overlap}, but stitching crop needs an even "
            "one on every axis; choose another stride"
        )
    margin = overlap if inference.stitching == "crop" else [a - b for a, b in zip(crop, output or crop, strict=True)]
    if inference.padding == "none" and any(margin):
        yield (
            f"inference.padding: 'none', but patches of {list(crop)} of which {margin} voxels are cut off at the "
            "border need padding around every image; choose edge or zero"
        )


def _names(config: ModelConfig) -> Iterator[str]:
    names = config.structure_names
    for where, values in (("structures", names), ("image_channels", config.image_channels)):
        for value in _repeated(values):
            yield f"{where}: {value!r} named twice; rename one or remove it"
    if BACKGROUND in names:
        yield f"structures: {BACKGROUND!r} is class 0 and is not listed; remove it"
    for name in sorted(set(names) & set(config.image_channels)):
        yield (
            f"image_channels: {name!r} is also the name of a structure; dataset.csv could not tell them apart, rename "
            "one"
        )
    for name, where in config.postprocessing.structure_names().items():
        if name not in names:
            yield f"postprocessing.{where}: {name!r} is none of the structures ({', '.join(names)})"


def _rules_on_labels(rules: PostprocessingConfig, names: Sequence[str]) -> Iterator[str]:
    for i, summed in enumerate(rules.summed_probability_rules):
        for value in _repeated([summed.first_class, summed.second_class, summed.external_class]):
            yield (
                f"postprocessing.summed_probability_rules.{i}: {value!r} has two roles; name three different "
                "structures, or remove the rule"
            )
    for value in _repeated([rule.structure for rule in rules.largest_component]):
        yield f"postprocessing.largest_component: {value!r} named twice; keep one of the two rules"
    pairs = [(rule.higher_class, rule.lower_class) for rule in rules.slice_exclusion_rules]
    for i, (higher, lower) in enumerate(pairs):
        if higher == lower:
            yield (
                f"postprocessing.slice_exclusion_rules.{i}.lower_class: {lower!r} is the higher_class, too; name two "
                "structures, or remove the rule"
            )
        if {higher, lower} in [set(pair) for pair in pairs[:i]]:
            yield (
                f"postprocessing.slice_exclusion_rules.{i}: {higher!r} and {lower!r} have a rule already; keep one of "
                "the two"
            )


def _settings_of_others(config: ModelConfig) -> Iterator[str]:
    expected, channels = config.input, config.image_channels
    if expected.on_mismatch == "resample" and expected.spacing_xyz_mm is None:
        yield "input.on_mismatch: 'resample' has no spacing to resample to; give spacing_xyz_mm, or remove it"
    if expected.spacing_xyz_mm is not None and expected.spacing_tolerance_mm >= min(expected.spacing_xyz_mm):
        yield (
            f"input.spacing_tolerance_mm: {expected.spacing_tolerance_mm:g} is not smaller than the spacing "
            f"{list(expected.spacing_xyz_mm)}, so that any finer one would do; choose a smaller tolerance"
        )
    tail = getattr(config.normalization, "tail", None)
    if tail is not None and len(tail) != len(channels):
        yield (
            f"normalization.tail: has {len(tail)} values, but there are {len(channels)} image channels; give one for "
            "each"
        )
    if config.network.activation == "sigmoid" and config.postprocessing.summed_probability_rules:
        yield (
            "postprocessing.summed_probability_rules: probabilities of a sigmoid do not exclude each other, so that "
            "their sum says nothing; remove the rules, or use softmax"
        )
    if config.epochs_to_test is not None:
        if not config.epochs_to_test:
            yield "epochs_to_test: is empty; use null for every epoch that has a checkpoint"
        for epoch in _repeated(config.epochs_to_test):
            yield f"epochs_to_test: {epoch} named twice; remove one"


def _own_network(config: ModelConfig) -> Iterator[str]:
    if config.network.factory not in _OWN_NETWORKS:
        return
    expected = {
        "input_channels": (len(config.image_channels), "there are {} image_channels"),
        "classes": (config.class_count, "structures and background are {}"),
    }
    for argument, (number, reason) in expected.items():
        given = config.network.arguments.get(argument, number)
        if given != number:
            yield f"network.arguments.{argument}: {given!r}, but {reason.format(number)}; make them agree"


def _repeated(values: Sequence[Any]) -> list[Any]:
    return sorted({value for value in values if values.count(value) > 1})


def _any_larger(sizes: Sequence[int], limits: Sequence[int]) -> bool:
    return any(size > limit for size, limit in zip(sizes, limits, strict=True))
