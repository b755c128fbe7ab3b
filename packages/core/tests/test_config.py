"""The model config: every key, its default, and the values and combinations of values that are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from innereye_core.config import (
    CTWindow,
    EnsembleConfig,
    InferenceConfig,
    InputConfig,
    LargestComponent,
    ModelConfig,
    MRIWindow,
    NetworkConfig,
    NoNormalization,
    PostprocessingConfig,
    SimpleNorm,
    SliceExclusionRule,
    Structure,
    SummedProbabilityRule,
    TrimmedNorm,
    palette_colour,
)
from innereye_core.config_files import read_model_config
from innereye_core.errors import InputError

EVERY_KEY = Path(__file__).parent / "data" / "model_every_key.yaml"

REQUIRED = """\
schema_version: 1
model_name: Prostate
structures: [{name: prostate}, {name: bladder}]
image_channels: [ct]
network: {factory: yourcode.nets:build_net}
inference: {crop_size_zyx: [64, 224, 224]}
"""

Read = Callable[..., ModelConfig]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read the required keys and what is added, or a text where one piece is replaced by another."""

    def read_text(added: str = "", replace: tuple[str, str] | None = None) -> ModelConfig:
        text = REQUIRED if replace is None else REQUIRED.replace(*replace)
        assert replace is None or text != REQUIRED
        path = tmp_path / "model.yaml"
        path.write_text(text + added)
        return read_model_config(path)

    return read_text


# --- the example of the documentation ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example() -> ModelConfig:
    return read_model_config(EVERY_KEY)


def test_example_is_the_one_of_the_design(shared: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (shared / "DESIGN.md").read_text(), re.DOTALL)
    assert EVERY_KEY.read_text() in blocks


def test_example_names_model_and_images(example: ModelConfig) -> None:
    assert (example.schema_version, example.model_name, example.image_channels) == (1, "Prostate", ("ct",))


def test_example_structure(example: ModelConfig) -> None:
    assert example.structures == (Structure("prostate", "Prostate", (255, 0, 0), True, "ORGAN"),)


def test_example_network(example: ModelConfig) -> None:
    arguments = {"input_channels": 1, "feature_channels": 16, "classes": 2, "downsampling_paths": 3}
    assert example.network == NetworkConfig("innereye_segmentation.networks:UNet3D", arguments, "softmax", None, None)


def test_example_input(example: ModelConfig) -> None:
    assert example.input == InputConfig("ct", (1.0, 1.0, 3.0), 0.1, "LPS", "refuse")


def test_example_normalization(example: ModelConfig) -> None:
    assert example.normalization == CTWindow("ct_window", 40.0, 400.0, (-1.0, 1.0))


def test_example_inference(example: ModelConfig) -> None:
    assert example.inference == InferenceConfig((64, 224, 224), None, 1, "edge", "average")


def test_example_postprocessing(example: ModelConfig) -> None:
    assert example.postprocessing == PostprocessingConfig(None, (), (LargestComponent("prostate", None),), ())


def test_example_ensemble_epochs_and_code(example: ModelConfig) -> None:
    assert (example.ensemble, example.epochs_to_test, example.extra_code_directory) == (
        EnsembleConfig("average"),
        None,
        None,
    )


# --- defaults ---------------------------------------------------------------------------------------------------------


def test_optional_keys_have_the_documented_defaults(read: Read) -> None:
    config = read()

    assert config.network == NetworkConfig("yourcode.nets:build_net", {}, "softmax", None, None)
    assert config.input == InputConfig(None, None, 0.1, None, "refuse")
    assert config.normalization == NoNormalization("none")
    assert config.inference == InferenceConfig((64, 224, 224), None, 1, "edge", None)
    assert config.postprocessing == PostprocessingConfig(None, (), (), ())
    assert config.ensemble == EnsembleConfig("average")
    assert config.epochs_to_test is None
    assert config.extra_code_directory is None


def test_stitching_that_is_not_named_means_average(read: Read) -> None:
    assert read().inference.effective_stitching == "average"


def test_display_name_is_the_name_where_none_is_given(read: Read) -> None:
    assert [structure.title for structure in read().structures] == ["prostate", "bladder"]


def test_holes_are_not_filled_where_nothing_is_said(read: Read) -> None:
    assert not read().structures[0].fill_holes


def test_colours_come_from_a_palette_where_none_are_given(read: Read) -> None:
    config = read(replace=("{name: bladder}", "{name: bladder, colour: [1, 2, 3]}"))
    assert config.colours == (palette_colour(0), (1, 2, 3))


def test_neighbouring_colours_of_the_palette_differ_for_any_number_of_structures() -> None:
    assert all(palette_colour(i) != palette_colour(i + 1) for i in range(300))


def test_classes_count_the_background(read: Read) -> None:
    config = read()
    assert (config.class_count, config.structure_names) == (3, ("prostate", "bladder"))


# --- the other forms that a key can have ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("{method: none}", NoNormalization()),
        ("{method: simple_norm}", SimpleNorm("simple_norm")),
        ("{method: ct_window, level: 40, window: 400}", CTWindow("ct_window", 40.0, 400.0, (-1.0, 1.0))),
        ("{method: mri_window}", MRIWindow("mri_window", 0.9, None, (-1.0, 1.0))),
        ("{method: mri_window, sharpen: 2, tail: [1.5]}", MRIWindow("mri_window", 2.0, (1.5,), (-1.0, 1.0))),
        ("{method: trimmed_norm}", TrimmedNorm("trimmed_norm", 0.9, (1.0, 99.0), (-1.0, 1.0))),
        (
            "{method: trimmed_norm, trim_percentiles: [2, 98], output_range: [0, 1]}",
            TrimmedNorm("trimmed_norm", 0.9, (2.0, 98.0), (0.0, 1.0)),
        ),
    ],
)
def test_normalizations(read: Read, written: str, meant: object) -> None:
    assert read(f"normalization: {written}\n").normalization == meant


def test_every_rule_of_postprocessing(read: Read) -> None:
    config = read(
        """\
postprocessing:
  posterior_smoothing_zyx_mm: [1, 2, 2]
  summed_probability_rules: [{first_class: prostate, second_class: bladder, external_class: prostate}]
  largest_component: [{structure: bladder, threshold: 0.2}]
  slice_exclusion_rules: [{higher_class: prostate, lower_class: bladder, higher_dominates: true}]
"""
    )
    assert config.postprocessing == PostprocessingConfig(
        (1.0, 2.0, 2.0),
        (SummedProbabilityRule("prostate", "bladder", "prostate"),),
        (LargestComponent("bladder", 0.2),),
        (SliceExclusionRule("prostate", "bladder", True),),
    )


def test_network_that_does_not_say_itself_what_it_needs(read: Read) -> None:
    needs = "size_multiple_zyx: [1, 8, 8], minimum_size_zyx: [1, 16, 16]"
    config = read(replace=("build_net", f"build_net, {needs}"))
    assert (config.network.size_multiple_zyx, config.network.minimum_size_zyx) == ((1, 8, 8), (1, 16, 16))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_activations(read: Read, activation: str) -> None:
    config = read(replace=("build_net", f"build_net, activation: {activation}"))
    assert config.network.activation == activation


@pytest.mark.parametrize("padding", ["edge", "zero", "none", "reflect", "symmetric", "wrap", "constant"])
def test_padding_is_edge_zero_none_or_a_mode_of_numpy(read: Read, padding: str) -> None:
    assert read(replace=("224]}", f"224], padding: {padding}}}")).inference.padding == padding


def test_even_overlap_for_crop(read: Read) -> None:
    inference = read(replace=("224]}", "224], stride_zyx: [32, 112, 112], stitching: crop}")).inference
    assert (inference.stride_zyx, inference.effective_stitching) == ((32, 112, 112), "crop")


def test_extra_code_directory_may_lie_deeper(read: Read) -> None:
    assert read("extra_code_directory: src/yourcode\n").extra_code_directory == "src/yourcode"


def test_epochs_to_test(read: Read) -> None:
    assert read("epochs_to_test: [100, 120, 140]\n").epochs_to_test == (100, 120, 140)


# --- what is refused --------------------------------------------------------------------------------------------------

CROP = "crop_size_zyx: [64, 224, 224]"

REFUSED_REPLACEMENTS = {
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
        "inference.stride_zyx: larger than crop_size",
    ),
    "odd overlap for crop": (
        "[64, 224, 224]",
        "[64, 224, 224], stride_zyx: [64, 112, 111], stitching: crop",
        6,
        "inference.stride_zyx: stitching crop needs an even overlap",
    ),
    "unknown padding": (CROP, f"{CROP}, padding: mirror", 6, "inference.padding: 'mirror' should be 'edge', 'zero'"),
    "padding that leaves voxels undefined": (CROP, f"{CROP}, padding: empty", 6, "inference.padding: 'empty'"),
    "unknown stitching": (CROP, f"{CROP}, stitching: mean", 6, "inference.stitching: 'mean' should be 'average'"),
    "section that is empty": (f" {{{CROP}}}", "", 6, "inference: None should be an object"),
}


@pytest.mark.parametrize("what", REFUSED_REPLACEMENTS)
def test_refused(read: Read, what: str) -> None:
    old, new, line, message = REFUSED_REPLACEMENTS[what]

    with pytest.raises(InputError, match=re.escape(f"model.yaml:{line}: ") + ".*" + re.escape(message)) as caught:
        read(replace=(old, new))

    assert "\n" not in str(caught.value)


REFUSED_ADDITIONS = {
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
    "smoothing of no width": (
        "postprocessing: {posterior_smoothing_zyx_mm: [0, 1, 1]}\n",
        7,
        "postprocessing.posterior_smoothing_zyx_mm.0: 0 should be greater than 0",
    ),
    "unknown aggregation": ("ensemble: {aggregation: vote}\n", 7, "ensemble.aggregation: 'vote' should be 'average'"),
}


@pytest.mark.parametrize("what", REFUSED_ADDITIONS)
def test_refused_addition(read: Read, what: str) -> None:
    added, line, message = REFUSED_ADDITIONS[what]

    with pytest.raises(InputError, match=re.escape(f"model.yaml:{line}: ") + ".*" + re.escape(message)) as caught:
        read(added)

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


def test_config_cannot_be_changed(read: Read) -> None:
    with pytest.raises(AttributeError):
        read().model_name = "Other"  # type: ignore[misc]
