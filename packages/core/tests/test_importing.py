"""Packages that InnerEye wrote become packages of this project: what is taken over, what is not, what is refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from innereye_core.config_files import PackagedConfig, read_inference_config
from innereye_core.errors import InputError, IntegrityError, MissingPluginError, RegistryError, UsageError
from innereye_core.host import Host
from innereye_core.importing import import_innereye
from innereye_core.manifest import verify
from innereye_core.model import Package, RunRecord
from innereye_core.packaging.plan import PackageOptions
from innereye_core.registered_models import load_model

YAML = """\
schema_version: 1
model_name: Prostate
structures: {structures}
image_channels: [ct]
network: {{factory: "toy_innereye.networks:Threshold"}}
inference: {{crop_size_zyx: [4, 8, 8]{inference}}}
"""
STRUCTURES = "[{name: prostate, display_name: Prostate gland}, {name: bladder}]"

LATER: dict[str, Any] = {"model_name": "Prostate", "model_configs_namespace": "InnerEye.ML.configs.Prostate"}
EARLIER: dict[str, Any] = {
    **LATER,
    "structure_names": ["Prostate gland", "bladder"],
    "colours": [[255, 0, 0], [0, 255, 0]],
    "fill_holes": [True, False],
}


class Original:
    """A folder that InnerEye wrote, and the model.yaml that somebody wrote for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "Prostate_892"
        self.config = folder / "model.yaml"
        self.output = folder / "imported"
        (self.folder / "InnerEye" / "ML").mkdir(parents=True)
        for name in ("score.py", "InnerEye/__init__.py", "InnerEye/ML/config.py"):
            (self.folder / name).write_text("raise SystemExit('code of the package was run')")
        self.write_config()

    def write_json(self, document: dict[str, Any]) -> None:
        (self.folder / "model_inference_config.json").write_text(json.dumps(document))

    def write_config(self, structures: str = STRUCTURES, inference: str = "") -> None:
        self.config.write_text(YAML.format(structures=structures, inference=inference))

    def write_checkpoint(self, path: str, epoch: int = 7, threshold: float = 0.25) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"epoch": epoch, "weights": {"threshold": threshold}, "optimizer": [1, 2]}))

    def with_checkpoints(self, *paths: str, schema: dict[str, Any] = LATER) -> Original:
        for i, path in enumerate(paths):
            self.write_checkpoint(path, threshold=(i + 1) / 10)
        self.write_json({**schema, "checkpoint_paths": list(paths)})
        return self


@pytest.fixture
def original(tmp_path: Path) -> Original:
    return Original(tmp_path)


@pytest.fixture
def convert(original: Original, host: Host) -> Callable[[], Package]:
    return lambda: import_innereye(original.folder, original.config, original.output, host=host)


def settings(package: Package) -> PackagedConfig:
    packaged = read_inference_config(package.folder / "model_inference_config.json")
    assert isinstance(packaged, PackagedConfig)
    return packaged


# --- what is made -----------------------------------------------------------------------------------------------------


def test_a_package_of_the_earlier_schema_becomes_one_that_can_be_loaded(
    original: Original, convert: Callable[[], Package], host: Host
) -> None:
    original.with_checkpoints("checkpoints/7_checkpoint.pth.tar", schema=EARLIER)
    made = convert()
    assert made.folder == original.output / "final_model"
    assert verify(made) == ()
    assert settings(made).checkpoint_paths == ("checkpoints/7_checkpoint.pth.tar",)
    assert load_model(made.folder, host=host).files.config.model_name == "Prostate"


def test_no_code_of_the_original_is_run_or_copied(original: Original, convert: Callable[[], Package]) -> None:
    original.with_checkpoints("checkpoints/last.ckpt")
    for path in convert().folder.rglob("*.py"):
        assert "code of the package was run" not in path.read_text()


def test_colours_and_holes_that_only_innereye_states_are_taken_over(
    original: Original, convert: Callable[[], Package]
) -> None:
    original.with_checkpoints("checkpoints/7_checkpoint.pth.tar", schema=EARLIER)
    prostate, bladder = settings(convert()).config.structures
    assert (prostate.colour, prostate.fill_holes) == ((255, 0, 0), True)
    assert (bladder.colour, bladder.fill_holes) == ((0, 255, 0), False)


@pytest.mark.parametrize(("name", "stitching"), [("7_checkpoint.pth.tar", "average"), ("last.ckpt", "crop")])
def test_stitching_is_that_of_the_innereye_that_wrote_the_checkpoint(
    original: Original, convert: Callable[[], Package], name: str, stitching: str
) -> None:
    original.with_checkpoints(f"checkpoints/{name}")
    assert settings(convert()).config.inference.stitching == stitching


def test_stitching_that_the_config_names_is_kept(original: Original, convert: Callable[[], Package]) -> None:
    original.with_checkpoints("checkpoints/last.ckpt").write_config(inference=", stitching: gaussian")
    assert settings(convert()).config.inference.stitching == "gaussian"


def test_several_checkpoints_become_an_ensemble_in_the_order_of_folds(
    original: Original, convert: Callable[[], Package]
) -> None:
    original.with_checkpoints("checkpoints/OTHER_RUNS/1/last.ckpt", "checkpoints/last.ckpt")
    made = convert()
    assert made.folder == original.output / "final_ensemble_model"
    assert settings(made).checkpoint_paths == ("checkpoints/0/last.ckpt", "checkpoints/1/last.ckpt")
    thresholds = [
        json.loads((made.folder / path).read_text())["weights"]["threshold"] for path in settings(made).checkpoint_paths
    ]
    assert thresholds == [0.2, 0.1]
    assert [(member.run, member.fold) for member in made.manifest.members] == [
        ("Prostate_892_0", "0"),
        ("Prostate_892_1", "1"),
    ]


def test_checkpoints_whose_folds_the_paths_do_not_tell_are_numbered(
    original: Original, convert: Callable[[], Package]
) -> None:
    original.with_checkpoints("a/last.ckpt", "b/last.ckpt")
    assert settings(convert()).checkpoint_paths == ("checkpoints/0/last.ckpt", "checkpoints/1/last.ckpt")


@pytest.mark.parametrize(
    ("stated", "place"),
    [
        ("outputs/checkpoints/7_checkpoint.pth.tar", "outputs/checkpoints/7_checkpoint.pth.tar"),
        ("outputs/checkpoints/7_checkpoint.pth.tar", "checkpoints/7_checkpoint.pth.tar"),
        ("7_checkpoint.pth.tar", "checkpoints/7_checkpoint.pth.tar"),
    ],
)
def test_a_checkpoint_is_found_where_innereye_put_it(
    original: Original, convert: Callable[[], Package], stated: str, place: str
) -> None:
    original.write_checkpoint(place)
    original.write_json({**LATER, "checkpoint_paths": [stated]})
    assert settings(convert()).checkpoint_paths == ("checkpoints/7_checkpoint.pth.tar",)


def test_the_manifest_says_where_the_model_comes_from(original: Original, convert: Callable[[], Package]) -> None:
    original.with_checkpoints("checkpoints/last.ckpt")
    manifest = convert().manifest
    assert manifest.run == RunRecord("Prostate_892", "Prostate_892", "InnerEye")
    (member,) = manifest.members
    assert (member.epoch, member.policy, member.score) == (7, "InnerEye", None)
    assert member.checkpoint.source_name == "last.ckpt"
    assert member.checkpoint.removed == ("optimizer",)
    assert member.checkpoint.notes == ("imported from an InnerEye package (InnerEye.ML.configs.Prostate)",)


def test_a_folder_that_is_only_called_final_model_is_named_after_the_one_around_it(
    original: Original, convert: Callable[[], Package]
) -> None:
    original.with_checkpoints("checkpoints/last.ckpt")
    inner = original.folder.parent / "Femur_3" / "final_model"
    inner.parent.mkdir()
    original.folder = original.folder.rename(inner)
    made = import_innereye(inner, original.config, original.output)
    assert made.manifest.run.name == "Femur_3"


def test_the_old_environment_is_left_out_with_a_warning(
    original: Original, convert: Callable[[], Package], caplog: pytest.LogCaptureFixture
) -> None:
    original.with_checkpoints("checkpoints/last.ckpt")
    (original.folder / "environment.yml").write_text("name: InnerEye\ndependencies: [python=3.7.3, pytorch=1.8.0]\n")
    with caplog.at_level(logging.WARNING):
        made = convert()
    assert f"{original.folder / 'environment.yml'} is left out" in caplog.text
    assert "3.7" not in (made.folder / "environment.yml").read_text()


def test_an_environment_that_is_given_is_merged(original: Original, host: Host, tmp_path: Path) -> None:
    original.with_checkpoints("checkpoints/last.ckpt")
    (tmp_path / "more.yml").write_text("dependencies: [einops=0.8.1]\n")
    options = PackageOptions(environments=(tmp_path / "more.yml",))
    made = import_innereye(original.folder, original.config, original.output, options, host=host)
    assert "einops=0.8.1" in (made.folder / "environment.yml").read_text()


def test_code_of_the_network_is_looked_for_beside_the_config(
    original: Original, convert: Callable[[], Package], tmp_path: Path
) -> None:
    original.with_checkpoints("checkpoints/last.ckpt")
    (tmp_path / "ImportedNets").mkdir()
    (tmp_path / "ImportedNets" / "nets.py").write_text("from toy_innereye.networks import Threshold as Net\n")
    text = original.config.read_text().replace("toy_innereye.networks:Threshold", "ImportedNets.nets:Net")
    original.config.write_text(text + "extra_code_directory: ImportedNets\n")
    assert (convert().folder / "ImportedNets" / "nets.py").is_file()


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model_name", "Femur", "model_name: 'Femur' contradicts .*model.yaml: model_name: 'Prostate'"),
        (
            "structure_names",
            ["Prostate gland", "rectum"],
            "structure_names: 'rectum' contradicts .*model.yaml: structures.1: name and display_name: 'bladder'",
        ),
        ("structure_names", ["Prostate gland"], "structure_names: .* contradicts .*model.yaml: structures: "),
        ("colours", [[255, 0, 0]], "colours: .* contradicts .*model.yaml: structures: "),
        ("colours", [[255, 0, 0], [9, 9, 9]], r"colours: \(9, 9, 9\) contradicts .*structures.1.colour: \(0, 255, 0\)"),
        ("fill_holes", [True, True], "fill_holes: True contradicts .*model.yaml: structures.1.fill_holes: False"),
    ],
)
def test_a_contradiction_is_refused_with_both_files(
    original: Original, convert: Callable[[], Package], key: str, value: Any, words: str
) -> None:
    original.with_checkpoints("checkpoints/7_checkpoint.pth.tar", schema={**EARLIER, key: value})
    original.write_config(STRUCTURES.replace("bladder", "bladder, colour: [0, 255, 0], fill_holes: false"))
    with pytest.raises(InputError, match=f"model_inference_config.json: {words}") as error:
        convert()
    assert "\n" not in str(error.value)
    assert not original.output.exists()


def test_a_missing_checkpoint_is_refused(original: Original, convert: Callable[[], Package]) -> None:
    original.write_json({**LATER, "checkpoint_paths": ["checkpoints/last.ckpt"]})
    with pytest.raises(InputError, match=r"checkpoint_paths: 'checkpoints/last.ckpt' is not in the folder"):
        convert()


def test_a_checkpoint_that_is_named_twice_is_refused(original: Original, convert: Callable[[], Package]) -> None:
    original.with_checkpoints("checkpoints/last.ckpt", "checkpoints/last.ckpt")
    with pytest.raises(InputError, match=r"checkpoint_paths: 'checkpoints/last.ckpt' is there twice"):
        convert()


def test_members_that_were_scored_differently_are_refused(original: Original, convert: Callable[[], Package]) -> None:
    original.with_checkpoints("checkpoints/last.ckpt", "checkpoints/OTHER_RUNS/1/7_checkpoint.pth.tar")
    with pytest.raises(InputError, match=r"model.yaml: inference.stitching: must be named, since it does not follow"):
        convert()


@pytest.mark.parametrize(
    ("inference", "words"),
    [
        (", stride_zyx: [1, 4, 4]", "stride_zyx: .* even overlap"),
        (", stride_zyx: [2, 4, 4], padding: none", "padding: "),
    ],
)
def test_settings_that_the_stitching_of_the_checkpoint_cannot_have_are_refused(
    original: Original, convert: Callable[[], Package], inference: str, words: str
) -> None:
    original.with_checkpoints("checkpoints/last.ckpt").write_config(inference=inference)
    with pytest.raises(InputError, match=f"model.yaml: inference.{words}.*ckpt were scored with stitching 'crop'"):
        convert()


def test_a_file_that_is_no_checkpoint_format_is_refused(original: Original, convert: Callable[[], Package]) -> None:
    original.with_checkpoints("checkpoints/weights.bin").write_config(inference=", stitching: crop")
    with pytest.raises(InputError, match=r"weights.bin: no installed checkpoint format recognises it"):
        convert()


def test_weights_that_are_not_numbers_are_refused(original: Original, convert: Callable[[], Package]) -> None:
    original.with_checkpoints("checkpoints/last.ckpt")
    original.write_checkpoint("checkpoints/last.ckpt", threshold=float("nan"))
    with pytest.raises(IntegrityError, match=r"last.ckpt: weight threshold is nan"):
        convert()
    assert not original.output.exists() or not list(original.output.iterdir())


def test_an_extra_code_directory_that_is_not_there_is_refused(
    original: Original, convert: Callable[[], Package]
) -> None:
    original.with_checkpoints("checkpoints/last.ckpt")
    original.config.write_text(original.config.read_text() + "extra_code_directory: Nowhere\n")
    with pytest.raises(InputError, match=r"model.yaml: extra_code_directory: .*Nowhere is no folder"):
        convert()


def test_without_a_plugin_that_reads_checkpoints_nothing_is_made(original: Original) -> None:
    original.with_checkpoints("checkpoints/last.ckpt")
    with pytest.raises(MissingPluginError, match="pip install innereye-imaging innereye-segmentation"):
        import_innereye(original.folder, original.config, original.output, host=Host([]))


def test_a_folder_that_is_missing_or_ours_is_refused(
    original: Original, host: Host, packaged: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder; give the one that has model_inference_config.json"):
        import_innereye(tmp_path / "nowhere", original.config, original.output, host=host)
    with pytest.raises(InputError, match=r"is no package of InnerEye, but one of this project already"):
        import_innereye(packaged, original.config, original.output, host=host)


def test_an_existing_package_is_only_replaced_where_that_is_asked_for(
    original: Original, convert: Callable[[], Package], host: Host
) -> None:
    original.with_checkpoints("checkpoints/last.ckpt")
    first = convert().digest
    with pytest.raises(RegistryError, match=r"final_model exists already; give --replace"):
        convert()
    original.write_checkpoint("checkpoints/last.ckpt", threshold=0.75)
    replaced = import_innereye(
        original.folder, original.config, original.output, PackageOptions(replace=True), host=host
    )
    assert replaced.digest != first


def test_the_original_is_never_replaced(original: Original, host: Host) -> None:
    original.with_checkpoints("checkpoints/last.ckpt")
    inner = original.folder.rename(original.folder.parent / "final_model")
    with pytest.raises(UsageError, match="the package would take the place of"):
        import_innereye(inner, original.config, inner.parent, PackageOptions(replace=True), host=host)
    assert (inner / "model_inference_config.json").is_file()


def test_real_configs_of_innereye_are_read(original: Original, convert: Callable[[], Package], shared: Path) -> None:
    """Both of an ensemble that Microsoft's pull request builds made, at the first and the last commit."""
    for commit in ("be36e392", "HEAD"):
        document = json.loads((shared / f"golden/config/{commit}_PR_TrainEnsemble.json").read_text())
        original.with_checkpoints(*document["checkpoint_paths"], schema=document)
        text = YAML.format(structures=STRUCTURES, inference="").replace("Prostate\n", document["model_name"] + "\n")
        original.config.write_text(text)
        original.output = original.output / commit
        made = import_innereye(original.folder, original.config, original.output)
        assert [member.fold for member in made.manifest.members] == ["0", "1"]


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_where_the_package_is(original: Original, innereye: Callable[..., Any], toy: Path) -> None:
    original.with_checkpoints("checkpoints/last.ckpt")
    arguments = ("import", "innereye", original.folder, "--config", original.config, "--output", original.output)
    done = innereye(*arguments).done()
    assert done.stdout.splitlines()[-1] == str(original.output / "final_model")
    innereye(*arguments).refused(5, "final_model exists already", "--replace")
    document = innereye(*arguments, "--replace", "--json").done().json
    assert document["package"] == str(original.output / "final_model")
    assert document["checkpoints"] == [{"path": "checkpoints/last.ckpt", "epoch": 7, "fold": None, "score": None}]


def test_the_command_refuses_what_cannot_be_read(original: Original, innereye: Callable[..., Any], toy: Path) -> None:
    original.with_checkpoints("checkpoints/last.ckpt")
    original.config.write_text("schema_version: 1\n")
    arguments = ("import", "innereye", original.folder, "--config", original.config)
    innereye(*arguments, "--output", original.output).refused(3, "model.yaml", "is required")
    innereye(*arguments).refused(2, "--output")
