"""The model config: every key and its default. What is refused is in test_config_refusals.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from config_texts import read_changed

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

EVERY_KEY = Path(__file__).parent / "data" / "model_every_key.yaml"

Read = Callable[..., ModelConfig]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read the required keys with changes."""
    return partial(read_changed, tmp_path)


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
  summed_probability_rules: [{first_class: prostate, second_class: bladder, external_class: skin}]
  largest_component: [{structure: bladder, threshold: 0.2}]
  slice_exclusion_rules: [{higher_class: prostate, lower_class: bladder, higher_dominates: true}]
""",
        replace=("{name: bladder}", "{name: bladder}, {name: skin}"),
    )
    assert config.postprocessing == PostprocessingConfig(
        (1.0, 2.0, 2.0),
        (SummedProbabilityRule("prostate", "bladder", "skin"),),
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


def test_own_networks_whose_arguments_agree(read: Read) -> None:
    arguments = "arguments: {input_channels: 1, classes: 3}"
    for name in ("UNet3D", "UNet2D", "Basic"):
        factory = f"innereye_segmentation.networks:{name}, {arguments}"
        assert read(replace=("yourcode.nets:build_net", factory)).network.arguments["classes"] == 3


def test_arguments_of_other_networks_are_their_own(read: Read) -> None:
    assert read(replace=("build_net", "build_net, arguments: {classes: 99}")).network.arguments == {"classes": 99}


def test_no_padding_where_it_may_never_be_needed(read: Read) -> None:
    for stitching in ("average", "crop", "gaussian"):
        inference = read(replace=("224]}", f"224], stitching: {stitching}, padding: none}}")).inference
        assert inference.padding == "none"


def test_config_cannot_be_changed(read: Read) -> None:
    with pytest.raises(AttributeError):
        read().model_name = "Other"  # type: ignore[misc]
