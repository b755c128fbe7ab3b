"""Reading and writing model.yaml and model_inference_config.json; errors name file, line, key; InnerEye's own files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from innereye_core.config import ModelConfig
from innereye_core.config_files import (
    InnerEyeConfig,
    PackagedConfig,
    inference_config_bytes,
    model_config_schema,
    read_inference_config,
    read_json_object,
    read_model_config,
)
from innereye_core.errors import InputError

EVERY_KEY = Path(__file__).parent / "data" / "model_every_key.yaml"

MINIMAL = """\
schema_version: 1
model_name: Prostate
structures: [{name: prostate}]
image_channels: [ct]
network: {factory: yourcode.nets:build_net}
inference: {crop_size_zyx: [64, 224, 224]}
"""


def read_yaml(tmp_path: Path, content: str | bytes) -> ModelConfig:
    path = tmp_path / "model.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_model_config(path)


def plain(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path)


# --- model.yaml -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [MINIMAL.encode("utf-8-sig"), MINIMAL.replace("\n", "\r\n").encode(), f"---\n{MINIMAL}...\n".encode()],
    ids=["byte order mark", "line ends of Windows", "document marks"],
)
def test_other_ways_to_save_the_same_text(tmp_path: Path, content: bytes) -> None:
    assert read_yaml(tmp_path, content) == read_yaml(tmp_path, MINIMAL)


def test_names_in_any_script(tmp_path: Path) -> None:
    config = read_yaml(tmp_path, MINIMAL.replace("{name: prostate}", "{name: 前列腺, display_name: Предстательная}"))
    assert (config.structures[0].name, config.structures[0].title) == ("前列腺", "Предстательная")


def test_anchors_aliases_and_merge_keys(tmp_path: Path) -> None:
    structures = "[&s {name: prostate, fill_holes: &yes true}, {<<: *s, name: bladder}, {name: x, fill_holes: *yes}]"
    config = read_yaml(tmp_path, MINIMAL.replace("[{name: prostate}]", structures))
    assert [structure.fill_holes for structure in config.structures] == [True, True, True]


def test_anchored_true_is_no_number(tmp_path: Path) -> None:
    text = MINIMAL.replace("224]}", "224], batch_size: &one true}")
    with pytest.raises(InputError, match=r"inference\.batch_size: True should be a valid integer"):
        read_yaml(tmp_path, text)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.yaml: no such file$"):
        read_model_config(tmp_path / "model.yaml")


def test_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").mkdir()
    with pytest.raises(InputError, match=r"model\.yaml: cannot be read: Is a directory"):
        read_model_config(tmp_path / "model.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            MINIMAL.replace("Prostate", "Prößtate").encode("latin-1"),
            r"model\.yaml: is not UTF-8 text .* save it as UTF-8",
        ),
        (MINIMAL.encode("utf-16"), r"model\.yaml: is not UTF-8 text"),
        (MINIMAL + "\tflavour: 1\n", r"model\.yaml:7: is not valid YAML: found character '\\t'"),
        (MINIMAL.replace("[ct]", "[ct"), r"model\.yaml:5: is not valid YAML"),
        (MINIMAL + "a: *unknown\n", r"model\.yaml:7: is not valid YAML: found undefined alias 'unknown'"),
        (MINIMAL + "---\n" + MINIMAL, r"model\.yaml:7: is not valid YAML: but found another document"),
        (MINIMAL + "a: \x01\n", r"model\.yaml: is not valid YAML: .*special characters are not allowed"),
        (MINIMAL.replace("Prostate", "!!python/name:os.system"), r"model\.yaml:2: is not valid YAML: .*os\.system"),
        (MINIMAL.replace("Prostate", "!secret Prostate"), r"model\.yaml:2: is not valid YAML: .*'!secret'"),
        (MINIMAL.replace("[64,", f"[{'9' * 5000},"), r"model\.yaml: is not valid YAML: Exceeds the limit"),
        (MINIMAL + f"a: {'[' * 500}{']' * 500}\n", r"model\.yaml: is not valid YAML: maximum recursion depth"),
        ("", r"model\.yaml: must hold keys and values"),
        ("- schema_version\n", r"model\.yaml: must hold keys and values"),
        ("Prostate\n", r"model\.yaml: must hold keys and values"),
        ("? [a, b]\n: c\n", r"model\.yaml:1: a key must be a text"),
        (MINIMAL.replace("Prostate", '"\\ud800"'), r"model\.yaml:1: holds something that cannot be read"),
    ],
    ids=[
        "Latin-1",
        "UTF-16",
        "tab",
        "open bracket",
        "unknown alias",
        "two documents",
        "control character",
        "tag that names code",
        "tag of somebody's own",
        "number without end",
        "brackets without end",
        "empty",
        "list",
        "text",
        "key that is a list",
        "half a character",
    ],
)
def test_what_is_no_model_yaml(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_yaml(tmp_path, content)

    assert "\n" not in str(caught.value)


def test_line_of_a_key_deep_in_a_list(tmp_path: Path) -> None:
    structures = "structures:\n  - name: prostate\n  - name: bladder\n    colour:\n      - 1\n      - -2\n      - 3\n"
    with pytest.raises(InputError, match=r"model\.yaml:8: structures\.1\.colour\.1: -2 should be greater"):
        read_yaml(tmp_path, MINIMAL.replace("structures: [{name: prostate}]\n", structures))


def test_line_of_a_missing_key_is_that_of_what_lacks_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.yaml:5: network\.factory: is required"):
        read_yaml(tmp_path, MINIMAL.replace("{factory: yourcode.nets:build_net}", "\n  arguments: {}"))


def test_long_values_are_cut_in_messages(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_yaml(tmp_path, MINIMAL + f"unknown: {'x' * 10_000}\n")

    assert len(str(caught.value)) < 400


# --- model_inference_config.json --------------------------------------------------------------------------------------


@pytest.fixture
def config() -> ModelConfig:
    return read_model_config(EVERY_KEY)


Write = Callable[[Callable[[dict[str, Any]], object]], Path]


@pytest.fixture
def changed(tmp_path: Path, config: ModelConfig) -> Write:
    """Write the packaged config after a change to it."""

    def write(change: Callable[[dict[str, Any]], object]) -> Path:
        document = json.loads(inference_config_bytes(config, ["checkpoints/1_checkpoint.pth.tar"]))
        change(document)
        path = tmp_path / "model_inference_config.json"
        path.write_text(json.dumps(document))
        return path

    return write


def test_config_comes_back_from_a_package_as_it_was(tmp_path: Path, config: ModelConfig) -> None:
    path = tmp_path / "model_inference_config.json"
    path.write_bytes(inference_config_bytes(config, ["checkpoints/0/1_checkpoint.pth.tar", "checkpoints/1/2.ckpt"]))

    checkpoints = ("checkpoints/0/1_checkpoint.pth.tar", "checkpoints/1/2.ckpt")
    assert read_inference_config(path) == PackagedConfig(config, checkpoints)


def test_keys_of_innereye_stay_at_the_top_with_their_names(config: ModelConfig) -> None:
    document = json.loads(inference_config_bytes(config, ["checkpoints/1_checkpoint.pth.tar"]))

    assert list(document)[:5] == ["model_name", "structure_names", "colours", "fill_holes", "checkpoint_paths"]
    assert document["model_name"] == "Prostate"
    assert document["structure_names"] == ["prostate"]
    assert document["colours"] == [[255, 0, 0]]
    assert document["fill_holes"] == [True]
    assert document["checkpoint_paths"] == ["checkpoints/1_checkpoint.pth.tar"]


def test_rest_of_the_config_is_beside_them_with_the_names_of_model_yaml(config: ModelConfig) -> None:
    document = json.loads(inference_config_bytes(config, ["checkpoints/1_checkpoint.pth.tar"]))
    written = plain(EVERY_KEY)

    assert written.keys() <= document.keys()
    assert document["network"] == {**written["network"], "minimum_size_zyx": None, "output_size_zyx": None}
    assert document["normalization"] == written["normalization"]


def test_colours_from_the_palette_are_no_contradiction(tmp_path: Path, config: ModelConfig) -> None:
    uncoloured = dataclasses.replace(config, structures=(dataclasses.replace(config.structures[0], colour=None),))
    path = tmp_path / "model_inference_config.json"
    path.write_bytes(inference_config_bytes(uncoloured, ["checkpoints/1.ckpt"]))

    assert read_inference_config(path) == PackagedConfig(uncoloured, ("checkpoints/1.ckpt",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(surprise=1), "surprise: unknown key"),
        (
            lambda d: d["inference"].update(crop_size_zyx=[1, -1, 1]),
            r"inference\.crop_size_zyx\.1: -1 should be greater",
        ),
        (lambda d: d.pop("network"), "network: is required"),
        (lambda d: d.pop("schema_version"), "schema_version: is required"),
        (lambda d: d.pop("checkpoint_paths"), "checkpoint_paths: is required"),
        (lambda d: d.update(checkpoint_paths=[]), r"checkpoint_paths: \[\] tuple should have at least 1 item"),
        (lambda d: d.update(checkpoint_paths=["../1.ckpt"]), r"checkpoint_paths\.0: '\.\./1\.ckpt' leaves the folder"),
        (lambda d: d.update(checkpoint_paths=["a\\b"]), r"checkpoint_paths\.0: .* with forward slashes"),
        (lambda d: d.update(structure_names=["bladder"]), r"structure_names: \['bladder'\] contradicts structures"),
        (lambda d: d.update(colours=[[0, 0, 0]]), r"colours: \[\[0, 0, 0\]\] contradicts structures"),
        (lambda d: d.update(fill_holes=[False]), r"fill_holes: \[False\] contradicts structures"),
        (
            lambda d: d["network"].update(output_size_zyx=[65, 224, 224]),
            r"network\.output_size_zyx: \[65, 224, 224\] is larger than inference\.crop_size_zyx \[64, 224, 224\]",
        ),
        (
            lambda d: d["normalization"].update(level=float("nan")),
            r"normalization\.level: nan should be a finite number",
        ),
    ],
)
def test_damaged_packaged_config(changed: Write, change: Callable[[dict[str, Any]], object], message: str) -> None:
    path = changed(change)

    with pytest.raises(InputError, match=rf"model_inference_config\.json: {message}") as caught:
        read_inference_config(path)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', r"x\.json: duplicate key 'c'; keep one of the two"),
        ('{"a": 1,\n "b": }', r"x\.json:2: is not valid JSON: Expecting value"),
        ("[1, 2]", r"x\.json: must hold one JSON object"),
        ("", r"x\.json:1: is not valid JSON"),
        ('{"a": ' + "9" * 5000 + "}", r"x\.json: is not valid JSON: Exceeds the limit"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", r"x\.json: is not valid JSON: maximum recursion"),
    ],
    ids=["duplicate key", "no value", "list", "empty", "number without end", "brackets without end"],
)
def test_what_is_no_json_object(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)

    with pytest.raises(InputError, match=message):
        read_json_object(path)


# --- InnerEye's own files ---------------------------------------------------------------------------------------------


def innereye_file(tmp_path: Path, **keys: object) -> Path:
    document = {
        "model_name": "Prostate",
        "checkpoint_paths": ["checkpoints/OTHER_RUNS/1/best_checkpoint.ckpt", "checkpoints/best_checkpoint.ckpt"],
        "model_configs_namespace": "InnerEye.ML.configs.segmentation.Prostate",
        **keys,
    }
    path = tmp_path / "model_inference_config.json"
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    return path


def test_later_schema_of_innereye(tmp_path: Path) -> None:
    assert read_inference_config(innereye_file(tmp_path)) == InnerEyeConfig(
        model_name="Prostate",
        checkpoint_paths=("checkpoints/OTHER_RUNS/1/best_checkpoint.ckpt", "checkpoints/best_checkpoint.ckpt"),
        model_configs_namespace="InnerEye.ML.configs.segmentation.Prostate",
    )


def test_schema_of_innereye_until_2021(tmp_path: Path) -> None:
    keys = {"structure_names": ["prostate"], "colours": [[255, 0, 1]], "fill_holes": [True]}
    config = read_inference_config(innereye_file(tmp_path, **keys))

    assert isinstance(config, InnerEyeConfig)
    assert (config.structure_names, config.colours, config.fill_holes) == (("prostate",), ((255, 0, 1),), (True,))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"checkpoint_paths": ["/home/x.ckpt"]}, r"checkpoint_paths\.0: '/home/x\.ckpt' leaves the folder"),
        ({"checkpoint_paths": []}, "checkpoint_paths"),
        ({"model_name": None}, "model_name: is required"),
        ({"model_name": 3}, "model_name: 3 should be a valid string"),
        ({"flavour": "sweet"}, "flavour: unknown key"),
        ({"fill_holes": ["yes"]}, r"fill_holes\.0: 'yes' should be a valid boolean"),
    ],
)
def test_damaged_file_of_innereye(tmp_path: Path, keys: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=rf"model_inference_config\.json: {message}"):
        read_inference_config(innereye_file(tmp_path, **keys))


def test_files_that_innereye_wrote(shared: Path) -> None:
    files = sorted((shared / "golden" / "config").glob("*_PR_*.json"))
    assert files
    for path in files:
        written = json.loads(path.read_text())
        assert read_inference_config(path) == InnerEyeConfig(
            written["model_name"], tuple(written["checkpoint_paths"]), written["model_configs_namespace"]
        )


# --- the schema -------------------------------------------------------------------------------------------------------


def check_against_schema(document: object) -> None:
    jsonschema.validate(document, model_config_schema(), cls=jsonschema.Draft202012Validator)


def test_schema_is_valid_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(model_config_schema())


def test_schema_accepts_the_example() -> None:
    check_against_schema(plain(EVERY_KEY))


def test_schema_explains_every_key() -> None:
    schema = model_config_schema()
    config = [schema, *schema["$defs"].values()]
    properties = {name: entry for part in config for name, entry in part.get("properties", {}).items()}
    explained = {name for name, entry in properties.items() if entry.get("description")}
    assert {"model_name", "crop_size_zyx", "spacing_xyz_mm", "stitching", "factory", "colour"} <= explained


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(flavour="sweet"),
        lambda document: document["inference"].update(batchsize=2),
        lambda document: document["inference"].update(crop_size_zyx=[64, -224, 224]),
        lambda document: document["inference"].update(crop_size_zyx=[64, 224]),
        lambda document: document["normalization"].update(method="ct"),
        lambda document: document.pop("network"),
        lambda document: document.update(schema_version=2),
        lambda document: document.update(model_name="My Prostate"),
    ],
    ids=[
        "unknown key",
        "unknown key further in",
        "negative size",
        "two axes",
        "normalization",
        "missing",
        "version",
        "name",
    ],
)
def test_schema_refuses(change: Callable[[dict[str, Any]], object]) -> None:
    document = plain(EVERY_KEY)
    change(document)

    with pytest.raises(jsonschema.ValidationError):
        check_against_schema(document)
