"""Every value and combination of values of the model config that is refused, with file, line, key and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from config_texts import read_changed

from innereye_core.config import ModelConfig
from innereye_core.errors import InputError

Read = Callable[..., ModelConfig]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read the required keys with changes."""
    return partial(read_changed, tmp_path)


CROP = "crop_size_zyx: [64, 224, 224]"

# What is written: a text that is replaced and by what, or a text that is added, or both; line and end of the message.
REFUSED = {
    "missing schema version": ("schema_version: 1\n", "", 1, "schema_version: is required; add it"),
    "missing model name": ("model_name: Prostate\n", "", 1, "model_name: is required"),
    "missing structures": ("structures: [{name: prostate}, {name: bladder}]\n", "", 1, "structures: is required"),
    "missing name of a structure": ("{name: bladder}", "{fill_holes: true}", 3, "structures.1.name: is required"),
    "missing image channels": ("image_channels: [ct]\n", "", 1, "image_channels: is required"),
    "missing factory": ("{factory: yourcode.nets:build_net}", "{}", 5, "network.factory: is required"),
    "missing crop size": (f"{{{CROP}}}", "{}", 6, "inference.crop_size_zyx: is required"),
    "another schema version": ("schema_version: 1", "schema_version: 2", 1, "schema_version: 2 should be 1"),
    "model name with a space": ("Prostate", "My Prostate", 2, "model_name: 'My Prostate' string should match pattern"),
    "model name that is a path": ("Prostate", "../Prostate", 2, "model_name: '../Prostate'"),
    "model name that is a number": ("Prostate", "2026", 2, "model_name: 2026 should be a valid string"),
    "no structures": ("[{name: prostate}, {name: bladder}]", "[]", 3, "structures: [] tuple should have at least 1"),
    "structures that are names": ("[{name: prostate}, {name: bladder}]", "[a]", 3, "structures.0: 'a' should be"),
    "structure named twice": ("bladder", "prostate", 3, "structures: 'prostate' named twice"),
    "structure named background": ("bladder", "background", 3, "structures: 'background' is class 0"),
    "structure that is a path": ("bladder", "a/b", 3, "structures.1.name: 'a/b'"),
    "channel that is a structure": (
        "[ct]",
        "[bladder]",
        4,
        "image_channels: 'bladder' is also the name of a structure",
    ),
    "channel named twice": ("[ct]", "[ct, ct]", 4, "image_channels: 'ct' named twice"),
    "no channels": ("[ct]", "[]", 4, "image_channels: []"),
    "colour out of range": ("{name: bladder}", "{name: x, colour: [0, 0, 256]}", 3, "structures.1.colour.2: 256"),
    "colour of two values": ("{name: bladder}", "{name: x, colour: [0, 0]}", 3, "structures.1.colour.2: is required"),
    "yes where true is meant": ("{name: bladder}", "{name: x, fill_holes: yes}", 3, "structures.1.fill_holes: 'yes'"),
    "factory without a callable": ("nets:build_net", "nets", 5, "'yourcode.nets' must read package.module:callable"),
    "factory that is a path": ("yourcode.nets:build_net", "code/nets.py:f", 5, "must read package.module:callable"),
    "unknown activation": (
        "build_net",
        "build_net, activation: relu",
        5,
        "network.activation: 'relu' should be 'softmax'",
    ),
    "argument that is not a number": (
        "build_net",
        "build_net, arguments: {a: [1, .nan]}",
        5,
        "network.arguments.a.1: nan is",
    ),
    "argument without end": (
        "build_net",
        "build_net, arguments: {a: .inf}",
        5,
        "network.arguments.a: inf is no finite",
    ),
    "negative crop size": ("[64, 224", "[64, -224", 6, "inference.crop_size_zyx.1: -224 should be greater than 0"),
    "crop size of zero": ("[64, 224", "[0, 224", 6, "inference.crop_size_zyx.0: 0 should be greater than 0"),
    "crop size of two axes": ("[64, 224, 224]", "[64, 224]", 6, "inference.crop_size_zyx.2: is required"),
    "crop size of four axes": ("[64, 224, 224]", "[1, 1, 1, 1]", 6, "inference.crop_size_zyx: [1, 1, 1, 1]"),
    "crop size as text": ("[64, 224, 224]", "['64', 224, 224]", 6, "inference.crop_size_zyx.0: '64' should be a valid"),
    "crop size with a fraction": ("[64, 224, 224]", "[64.5, 8, 8]", 6, "inference.crop_size_zyx.0: 64.5 should be a"),
    "true as a number": (CROP, f"{CROP}, batch_size: true", 6, "inference.batch_size: True should be a valid integer"),
    "batch size of zero": (CROP, f"{CROP}, batch_size: 0", 6, "inference.batch_size: 0 should be greater than 0"),
    "stride of zero": (CROP, f"{CROP}, stride_zyx: [0, 8, 8]", 6, "inference.stride_zyx.0: 0 should be greater than 0"),
    "stride beyond the crop": (
        CROP,
        f"{CROP}, stride_zyx: [65, 8, 8]",
        6,
        "inference.stride_zyx: [65, 8, 8] is larger than crop_size_zyx [64, 224, 224], so that voxels between",
    ),
    "odd overlap for crop": (
        "[64, 224, 224]",
        "[64, 224, 224], stride_zyx: [64, 112, 111], stitching: crop",
        6,
        "inference.stride_zyx: stitching crop needs an even overlap (crop_size_zyx - stride_zyx), not [0, 112, 113]",
    ),
    "crop that the network cannot divide": (
        "build_net}",
        "build_net, size_multiple_zyx: [1, 16, 15]}",
        6,
        "inference.crop_size_zyx: [64, 224, 224] is no multiple of network.size_multiple_zyx [1, 16, 15]",
    ),
    "crop below what the network takes": (
        "build_net}",
        "build_net, minimum_size_zyx: [65, 1, 1]}",
        6,
        "inference.crop_size_zyx: [64, 224, 224] is below network.minimum_size_zyx [65, 1, 1]; enlarge it",
    ),
    "output larger than the crop": (
        "build_net}",
        "build_net, output_size_zyx: [64, 225, 224]}",
        5,
        "network.output_size_zyx: [64, 225, 224] is larger than inference.crop_size_zyx [64, 224, 224]",
    ),
    "stride beyond the output": (
        "build_net}\ninference: {crop_size_zyx: [64, 224, 224]",
        "build_net, output_size_zyx: [36, 96, 96]}\ninference: {crop_size_zyx: [64, 224, 224], stride_zyx: [37, 9, 9]",
        6,
        "inference.stride_zyx: [37, 9, 9] is larger than network.output_size_zyx [36, 96, 96], so that voxels would",
    ),
    "odd overlap for crop from the output": (
        "build_net}\ninference: {crop_size_zyx: [64, 224, 224]",
        "build_net, output_size_zyx: [64, 223, 224]}\ninference: {crop_size_zyx: [64, 224, 224], stitching: crop",
        6,
        "inference.stride_zyx: [64, 223, 224] leaves an overlap of [0, 1, 0], but stitching crop needs an even one",
    ),
    "no padding where crop always pads": (
        "224]}",
        "224], stride_zyx: [64, 112, 112], stitching: crop, padding: none}",
        6,
        "inference.padding: 'none', but patches of [64, 224, 224] of which [0, 112, 112] voxels are cut off",
    ),
    "no padding for a network that returns less": (
        "build_net}\ninference: {crop_size_zyx: [64, 224, 224]",
        "build_net, output_size_zyx: [64, 196, 196]}\ninference: {crop_size_zyx: [64, 224, 224], padding: none",
        6,
        "inference.padding: 'none', but patches of [64, 224, 224] of which [0, 28, 28] voxels are cut off",
    ),
    "classes of an own network": (
        "yourcode.nets:build_net",
        "innereye_segmentation.networks:UNet3D, arguments: {classes: 2}",
        5,
        "network.arguments.classes: 2, but structures and background are 3; make them agree",
    ),
    "input channels of an own network": (
        "yourcode.nets:build_net",
        "innereye_segmentation.networks:Basic, arguments: {input_channels: 2}",
        5,
        "network.arguments.input_channels: 2, but there are 1 image_channels; make them agree",
    ),
    "unknown padding": (CROP, f"{CROP}, padding: mirror", 6, "inference.padding: 'mirror' should be 'edge', 'zero'"),
    "padding that leaves voxels undefined": (CROP, f"{CROP}, padding: empty", 6, "inference.padding: 'empty'"),
    "unknown stitching": (CROP, f"{CROP}, stitching: mean", 6, "inference.stitching: 'mean' should be 'average'"),
    "section that is empty": (f" {{{CROP}}}", "", 6, "inference: None should be an object"),
    "unknown key": ("zzz: sweet\n", 7, "zzz: unknown key (value 'sweet'); remove it"),
    "misspelt key": (
        "epochs_to_tset: [1]\n",
        7,
        "epochs_to_tset: unknown key (value [1]); did you mean 'epochs_to_test'",
    ),
    "misspelt key further in": ("\n\ninput:\n  spacing_xyz: [1, 1, 1]\n", 10, "input.spacing_xyz: unknown key"),
    "key given twice": ("model_name: Bladder\n", 7, 'found duplicate key "model_name"; keep one of the two'),
    "key given twice further in": ("input: {modality: ct, modality: mr}\n", 7, 'found duplicate key "modality"'),
    "key that is a number": ("3: x\n", 7, "a key must be a text"),
    "path above the folder": (
        "extra_code_directory: ../code\n",
        7,
        "extra_code_directory: '../code' leaves the folder",
    ),
    "path that goes up and down": ("extra_code_directory: a/../../b\n", 7, "leaves the folder"),
    "absolute path": ("extra_code_directory: /code\n", 7, "extra_code_directory: '/code' leaves the folder"),
    "path of Windows": ("extra_code_directory: C:\\code\n", 7, "must be a path inside the folder"),
    "path with backslashes": ("extra_code_directory: src\\code\n", 7, "must be a path inside the folder"),
    "path to the folder itself": ("extra_code_directory: .\n", 7, "must be a path inside the folder"),
    "negative epoch": ("epochs_to_test: [3, -1]\n", 7, "epochs_to_test.1: -1 should be greater than or equal to 0"),
    "no epochs": ("epochs_to_test: []\n", 7, "epochs_to_test: is empty; use null"),
    "orientation of two letters": ("input: {orientation: LP}\n", 7, "input.orientation: 'LP' must have one letter"),
    "orientation with an axis twice": (
        "input: {orientation: LRS}\n",
        7,
        "input.orientation: 'LRS' must have one letter",
    ),
    "unknown modality": ("input: {modality: us}\n", 7, "input.modality: 'us' should be 'ct', 'mr' or 'pt'"),
    "negative spacing": ("input: {spacing_xyz_mm: [1, 1, -3]}\n", 7, "input.spacing_xyz_mm.2: -3 should be greater"),
    "spacing that is no number": (
        "input: {spacing_xyz_mm: [1, 1, .nan]}\n",
        7,
        "spacing_xyz_mm.2: nan should be a finite",
    ),
    "orientation in small letters": ("input: {orientation: lps}\n", 7, "input.orientation: 'lps' must have one letter"),
    "spacing of zero": (
        "input: {spacing_xyz_mm: [1, 0, 3]}\n",
        7,
        "input.spacing_xyz_mm.1: 0 should be greater than 0",
    ),
    "spacing of two axes": ("input: {spacing_xyz_mm: [1, 3]}\n", 7, "input.spacing_xyz_mm.2: is required; add it"),
    "tolerance as large as the spacing": (
        "input: {spacing_xyz_mm: [0.5, 0.5, 3], spacing_tolerance_mm: 0.5}\n",
        7,
        "input.spacing_tolerance_mm: 0.5 is not smaller than the spacing [0.5, 0.5, 3.0]",
    ),
    "resampling to no spacing": (
        "input:\n  on_mismatch: resample\n",
        8,
        "input.on_mismatch: 'resample' has no spacing to resample to; give spacing_xyz_mm",
    ),
    "negative tolerance": ("input: {spacing_tolerance_mm: -0.1}\n", 7, "input.spacing_tolerance_mm: -0.1"),
    "unknown way out": (
        "input: {on_mismatch: guess}\n",
        7,
        "input.on_mismatch: 'guess' should be 'refuse' or 'resample'",
    ),
    "unknown normalization": ("normalization: {method: ct}\n", 7, "normalization: 'ct' is unknown; use one of 'none'"),
    "normalization without a method": (
        "normalization: {level: 40}\n",
        7,
        "normalization: 'method' is required; add it",
    ),
    "CT window without its level": (
        "normalization: {method: ct_window, window: 9}\n",
        7,
        "normalization.level: is required",
    ),
    "CT window of no width": (
        "normalization: {method: ct_window, level: 40, window: 0}\n",
        7,
        "normalization.window: 0 should be greater than 0",
    ),
    "key of another normalization": (
        "normalization: {method: ct_window, level: 40, window: 400, tail: [1]}\n",
        7,
        "normalization.tail: unknown key",
    ),
    "output range upside down": (
        "normalization:\n  method: ct_window\n  level: 40\n  window: 400\n  output_range: [1, -1]\n",
        11,
        "normalization.output_range: [1, -1] the first value must be below the second",
    ),
    "output range of one value": (
        "normalization: {method: mri_window, output_range: [1, 1]}\n",
        7,
        "normalization.output_range: [1, 1] the first value must be below the second",
    ),
    "percentiles upside down": (
        "normalization: {method: trimmed_norm, trim_percentiles: [99, 1]}\n",
        7,
        "normalization.trim_percentiles: [99, 1] the first value must be below the second",
    ),
    "negative percentile": (
        "normalization: {method: trimmed_norm, trim_percentiles: [-1, 99]}\n",
        7,
        "normalization.trim_percentiles.0: -1 should be greater than or equal to 0",
    ),
    "sharpening by nothing": (
        "normalization: {method: trimmed_norm, sharpen: 0}\n",
        7,
        "normalization.sharpen: 0 should be greater than 0",
    ),
    "negative CT window": (
        "normalization: {method: ct_window, level: 40, window: -400}\n",
        7,
        "normalization.window: -400 should be greater than 0",
    ),
    "tail of zero": (
        "normalization: {method: mri_window, tail: [0]}\n",
        7,
        "normalization.tail.0: 0 should be greater than 0",
    ),
    "percentile above 100": (
        "normalization: {method: trimmed_norm, trim_percentiles: [1, 101]}\n",
        7,
        "normalization.trim_percentiles.1: 101",
    ),
    "tail for another number of channels": (
        "normalization: {method: mri_window, tail: [1, 2]}\n",
        7,
        "normalization.tail: has 2 values, but there are 1 image channels",
    ),
    "rule for an unknown structure": (
        "postprocessing:\n  largest_component:\n    - {structure: prostate}\n    - {structure: rectum}\n",
        10,
        "postprocessing.largest_component.1.structure: 'rectum' is none of the structures (prostate, bladder)",
    ),
    "threshold above 1": (
        "postprocessing: {largest_component: [{structure: prostate, threshold: 1.5}]}\n",
        7,
        "postprocessing.largest_component.0.threshold: 1.5",
    ),
    "threshold of zero": (
        "postprocessing: {largest_component: [{structure: prostate, threshold: 0}]}\n",
        7,
        "postprocessing.largest_component.0.threshold: 0 should be greater than 0",
    ),
    "largest component twice": (
        "postprocessing: {largest_component: [{structure: bladder}, {structure: bladder, threshold: 0.1}]}\n",
        7,
        "postprocessing.largest_component: 'bladder' named twice; keep one of the two rules",
    ),
    "summed probability of one structure": (
        "postprocessing:\n  summed_probability_rules:\n"
        "    - {first_class: bladder, second_class: bladder, external_class: prostate}\n",
        9,
        "postprocessing.summed_probability_rules.0: 'bladder' has two roles; name three different structures",
    ),
    "summed probability against itself": (
        "postprocessing:\n  summed_probability_rules:\n"
        "    - {first_class: prostate, second_class: bladder, external_class: bladder}\n",
        9,
        "postprocessing.summed_probability_rules.0: 'bladder' has two roles",
    ),
    "slices of one structure": (
        "postprocessing:\n  slice_exclusion_rules:\n"
        "    - {higher_class: bladder, lower_class: bladder, higher_dominates: true}\n",
        9,
        "postprocessing.slice_exclusion_rules.0.lower_class: 'bladder' is the higher_class, too",
    ),
    "slices of a pair twice": (
        "postprocessing:\n  slice_exclusion_rules:\n"
        "    - {higher_class: prostate, lower_class: bladder, higher_dominates: true}\n"
        "    - {higher_class: bladder, lower_class: prostate, higher_dominates: true}\n",
        10,
        "postprocessing.slice_exclusion_rules.1: 'bladder' and 'prostate' have a rule already; keep one of the two",
    ),
    "epoch named twice": ("epochs_to_test: [3, 7, 3]\n", 7, "epochs_to_test: 3 named twice; remove one"),
    "smoothing of no width": (
        "postprocessing: {posterior_smoothing_zyx_mm: [0, 1, 1]}\n",
        7,
        "postprocessing.posterior_smoothing_zyx_mm.0: 0 should be greater than 0",
    ),
    "unknown aggregation": ("ensemble: {aggregation: vote}\n", 7, "ensemble.aggregation: 'vote' should be 'average'"),
    "sums of sigmoids": (
        "{name: bladder}]\nimage_channels: [ct]\nnetwork: {",
        "{name: bladder}, {name: skin}]\nimage_channels: [ct]\nnetwork: {activation: sigmoid, ",
        "postprocessing:\n  summed_probability_rules:\n"
        "    - {first_class: prostate, second_class: bladder, external_class: skin}\n",
        8,
        "postprocessing.summed_probability_rules: probabilities of a sigmoid do not exclude each other",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(read: Read, what: str) -> None:
    *change, line, message = REFUSED[what]
    added = "" if len(change) == 2 else str(change[-1])
    replace = None if len(change) == 1 else change[:2]

    with pytest.raises(InputError, match=re.escape(f"model.yaml:{line}: ") + ".*" + re.escape(str(message))) as caught:
        read(added, replace)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("role", ["first_class", "second_class", "external_class"])
def test_every_structure_of_a_summed_probability_rule_must_exist(read: Read, role: str) -> None:
    rule = {"first_class": "prostate", "second_class": "bladder", "external_class": "prostate", role: "rectum"}
    written = ", ".join(f"{key}: {value}" for key, value in rule.items())

    with pytest.raises(InputError, match=rf"summed_probability_rules\.0\.{role}: 'rectum' is none of the structures"):
        read(f"postprocessing: {{summed_probability_rules: [{{{written}}}]}}\n")


@pytest.mark.parametrize("role", ["higher_class", "lower_class"])
def test_every_structure_of_a_slice_exclusion_rule_must_exist(read: Read, role: str) -> None:
    rule = {"higher_class": "prostate", "lower_class": "bladder", "higher_dominates": "false", role: "rectum"}
    written = ", ".join(f"{key}: {value}" for key, value in rule.items())

    with pytest.raises(InputError, match=rf"slice_exclusion_rules\.0\.{role}: 'rectum' is none of the structures"):
        read(f"postprocessing: {{slice_exclusion_rules: [{{{written}}}]}}\n")


def test_more_structures_than_uint8_has_labels(read: Read) -> None:
    structures = ", ".join(f"{{name: s{i}}}" for i in range(256))
    with pytest.raises(InputError, match=r"structures: .* at most 255 items"):
        read(replace=("{name: prostate}, {name: bladder}", structures))


def test_several_problems_are_counted(read: Read) -> None:
    with pytest.raises(InputError, match=r"inference\.batch_size: 0 .* \(and 1 more\)$"):
        read(replace=(CROP, f"{CROP}, batch_size: 0, padding: mirror"))


def test_unknown_key_is_named_before_what_is_missing_because_of_it(read: Read) -> None:
    with pytest.raises(InputError, match=r"model_nam: unknown key .* did you mean 'model_name'\? \(and 1 more\)"):
        read(replace=("model_name", "model_nam"))
