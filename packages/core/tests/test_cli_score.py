"""``innereye score``: InnerEye's options, where the result goes, and what is said when something is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from innereye_core import load_model, score
from innereye_core.errors import InputError, IntegrityError, MissingPluginError

Invoke = Callable[..., Any]

IMAGE = "0.1 0.15 0.25 0.9"
LABELS = "0 0 1 1"
"""What the packaged network makes of it: its threshold is 0.2."""


@pytest.fixture
def image() -> Path:
    """An image in the current folder, under the name that InnerEye's score.py expects."""
    path = Path("test.nii.gz")
    path.write_text(IMAGE)
    return path


@pytest.fixture
def model(packaged: Path, innereye: Invoke, image: Path) -> Path:
    return packaged


# --- without plugins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [[], ["nothing", "at-all.nii"], ["--model_folder", "gone"], ["--use_dicom", "True"]]
)
def test_missing_packages_are_named_before_anything_else_is_looked_at(innereye: Invoke, arguments: list[str]) -> None:
    innereye("score", *arguments).refused(6, "pip install innereye-imaging innereye-segmentation")


def test_api_without_plugins_looks_at_nothing_either() -> None:
    with pytest.raises(MissingPluginError, match="pip install innereye-imaging innereye-segmentation"):
        score("nothing", ["at-all.nii"])


# --- the result -------------------------------------------------------------------------------------------------------


def test_result_goes_into_the_current_folder(innereye: Invoke, model: Path, image: Path) -> None:
    lines = innereye("score", model, image).stdout.splitlines()

    assert Path("segmentation.nii.gz").read_text() == LABELS
    assert lines[0].split() == ["label", "structure", "voxels", "ml"]
    assert lines[1].split() == ["1", "bright", "2", "0.00"]
    assert lines[-1] == "segmentation.nii.gz"


def test_what_could_not_be_checked_is_said_on_stderr(innereye: Invoke, model: Path, image: Path) -> None:
    assert innereye("score", model, image).stderr == "unchecked: orientation: text has none\n"


def test_json(innereye: Invoke, model: Path, image: Path) -> None:
    assert innereye("score", model, image, "--json").done().json == {
        "segmentation": "segmentation.nii.gz",
        "model": str(model),
        "structures": {"bright": {"label": 1, "voxels": 2, "volume_ml": 0.002}},
        "checks": [
            {"name": "orientation", "outcome": "unchecked", "detail": "text has none"},
            {"name": "numbers", "outcome": "passed", "detail": "all finite"},
        ],
        "seconds": 0.25,
        "runtime": "toy",
        "posteriors": None,
        "uncertainty": None,
        "disagreement": None,
        "statistics": [],
        "preview": None,
        "report": None,
        "review": [],
    }


def test_output_and_posteriors(innereye: Invoke, model: Path, image: Path) -> None:
    words = ["score", model, image, "--output", "a.txt", "--posteriors", "p.txt", "--json"]
    document = innereye(*words).done().json
    assert (document["segmentation"], document["posteriors"]) == ("a.txt", "p.txt")
    assert (Path("a.txt").read_text(), Path("p.txt").read_text()) == (LABELS, "0.0 0.0 1.0 1.0")


def test_everything_else_that_can_be_written(innereye: Invoke, model: Path, image: Path) -> None:
    numbers = ["--statistics", "s.json", "--statistics", "s.csv"]
    pictures = ["--uncertainty", "u.txt", "--preview", "p.png", "--report", "r.html"]
    document = innereye("score", model, image, *numbers, *pictures, "--json").done().json
    assert document["statistics"] == ["s.json", "s.csv"]
    assert [document[key] for key in ("uncertainty", "preview", "report")] == ["u.txt", "p.png", "r.html"]
    assert all(Path(name).is_file() for name in ("s.json", "s.csv", "u.txt", "p.png", "r.html"))


def test_mask_reaches_the_scorer(innereye: Invoke, model: Path, image: Path) -> None:
    Path("mask.txt").write_text("1 1 0 1")
    assert innereye("score", model, image, "--mask", "mask.txt").exit_code == 0
    assert Path("segmentation.nii.gz").read_text() == "0 0 0 1"


@pytest.mark.parametrize(("name", "made"), [("new/", False), ("there", True), ("there/", True)])
def test_posteriors_go_into_a_folder_that_is_there_or_ends_with_a_slash(
    innereye: Invoke, model: Path, image: Path, name: str, made: bool
) -> None:
    if made:
        Path(name).mkdir()
    document = innereye("score", model, image, "--posteriors", name, "--json").done().json
    assert Path(document["posteriors"]) == Path(name)
    assert (Path(name) / "bright.txt").read_text() == "0.0 0.0 1.0 1.0"


@pytest.mark.parametrize("json", [[], ["--json"]])
def test_what_to_review_is_said_on_stderr(innereye: Invoke, model: Path, image: Path, json: list[str]) -> None:
    image.write_text("0.1 0.1")
    outcome = innereye("score", model, image, *json)
    assert "review: bright: not found, but 2 subjects have it" in outcome.stderr.splitlines()
    if json:
        assert outcome.json["review"] == ["bright: not found, but 2 subjects have it"]


def test_existing_result_is_kept_unless_overwriting_is_asked_for(innereye: Invoke, model: Path, image: Path) -> None:
    Path("segmentation.nii.gz").write_text("precious")

    innereye("score", model, image).refused(3, "segmentation.nii.gz exists already")
    assert Path("segmentation.nii.gz").read_text() == "precious"

    assert innereye("score", model, image, "--overwrite").exit_code == 0
    assert Path("segmentation.nii.gz").read_text() == LABELS


@pytest.mark.parametrize("how", ["arguments", "model_folder"])
def test_existing_posteriors_are_kept(innereye: Invoke, model: Path, image: Path, how: str) -> None:
    Path("p.txt").write_text("precious")
    words = [model, image] if how == "arguments" else ["--model_folder", model]

    innereye("score", *words, "--posteriors", "p.txt").refused(3, "p.txt exists already", "--overwrite")

    assert Path("p.txt").read_text() == "precious"
    assert not (model / "segmentation.nii.gz").exists()


# --- the model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_id", ["Toy:1", "Toy:latest"])
def test_model_by_its_id(innereye: Invoke, model: Path, image: Path, model_id: str) -> None:
    innereye("register", model)
    assert innereye("score", model_id, image, "--json").json["model"] == "Toy:1"


def test_ensemble_averages_its_members(innereye: Invoke, folds: Path, toy: Path) -> None:
    # The members' thresholds are 0.1, 0.2 and 0.3: a voxel is found by one, two or all of them.
    innereye("deploy", folds, "--ensemble").done()
    Path("image.txt").write_text("0.05 0.15 0.25 0.35")

    assert innereye("score", "Toy:4", "image.txt", "--posteriors", "p.txt").exit_code == 0

    assert [float(word) for word in Path("p.txt").read_text().split()] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert Path("segmentation.nii.gz").read_text() == "0 0 1 1"


def test_packaged_extra_code_is_used(innereye: Invoke, run_folder: Path, toy: Path) -> None:
    (run_folder / "YourCode").mkdir()
    (run_folder / "YourCode" / "nets.py").write_text(
        "from toy_innereye.networks import Threshold\n\n\nclass Inverted(Threshold):\n"
        "    def foreground(self, values):\n        return 1.0 - super().foreground(values)\n"
    )
    text = (run_folder / "model.yaml").read_text().replace("toy_innereye.networks:Threshold", "YourCode.nets:Inverted")
    (run_folder / "model.yaml").write_text(f"{text}extra_code_directory: YourCode\n")
    innereye("package", run_folder).done()
    Path("image.txt").write_text(IMAGE)

    assert innereye("score", run_folder / "final_model", "image.txt").exit_code == 0

    assert Path("segmentation.nii.gz").read_text() == "1 1 0 0"


@pytest.mark.parametrize(
    ("reference", "exit_code", "words"),
    [
        ("Toy:9", 5, "Toy:9 is not in the local registry"),
        ("nothing-here", 3, "nothing-here: is neither a package folder nor a model id"),
        (".", 3, "is not a package: it has no manifest.json"),
    ],
)
def test_model_that_is_none(
    innereye: Invoke, model: Path, image: Path, reference: str, exit_code: int, words: str
) -> None:
    innereye("score", reference, image).refused(exit_code, words)


def test_model_that_was_tampered_with(innereye: Invoke, model: Path, image: Path) -> None:
    (model / "checkpoints" / "2_checkpoint.pth.tar").write_text('{"epoch": 2, "weights": {"threshold": 0.9}}')
    innereye("score", model, image).refused(4, "2_checkpoint.pth.tar has changed")
    assert not Path("segmentation.nii.gz").exists()


def test_package_of_innereye_itself_is_no_package_of_ours(
    innereye: Invoke, toy: Path, image: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "old" / "final_model"
    folder.mkdir(parents=True)
    document = {"model_name": "X", "checkpoint_paths": ["a.ckpt"], "model_configs_namespace": "n"}
    (folder / "model_inference_config.json").write_text(json.dumps(document))
    innereye("score", folder, image).refused(3, "is not a package")


def test_other_version_than_the_packages_is_reported(
    innereye: Invoke, model: Path, image: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = model / "manifest.json"
    document = json.loads(manifest.read_text())
    document["versions"]["innereye-core"] = "0.0.1"
    manifest.write_text(json.dumps(document))

    assert innereye("score", model, image).exit_code == 0

    assert "packaged with innereye-core 0.0.1, and this is" in caplog.text


# --- images -----------------------------------------------------------------------------------------------------------


def test_missing_image_in_innereyes_words(innereye: Invoke, model: Path) -> None:
    innereye("score", model, "gone.nii.gz").refused(3, f"File gone.nii.gz does not exist in data folder {Path.cwd()}")


def test_one_image_per_channel_in_order(innereye: Invoke, run_folder: Path, toy: Path) -> None:
    text = (run_folder / "model.yaml").read_text()
    text = text.replace("[ct]", "[ct, pet]").replace("Threshold", "Threshold\n  arguments: {channels: 2}")
    (run_folder / "model.yaml").write_text(text)
    innereye("package", run_folder).done()
    Path("ct.txt").write_text("0.0 0.1")
    Path("pet.txt").write_text("0.1 0.9")

    assert innereye("score", run_folder / "final_model", "ct.txt", "pet.txt").exit_code == 0

    assert Path("segmentation.nii.gz").read_text() == "0 1"


# --- InnerEye's own options -------------------------------------------------------------------------------------------


def test_model_folder_takes_innereyes_defaults(innereye: Invoke, model: Path, image: Path) -> None:
    (model / "segmentation.nii.gz").write_text("older result")

    assert innereye("score", "--model_folder", model).exit_code == 0

    assert (model / "segmentation.nii.gz").read_text() == LABELS
    assert not Path("segmentation.nii.gz").exists()


def test_data_folder_image_files_and_result_image_name(innereye: Invoke, model: Path, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.txt").write_text(IMAGE)
    words = ["--data_folder", tmp_path / "scans", "--image_files", "a.txt", "--result_image_name", "result.txt"]

    assert innereye("score", "--model_folder", model, *words).exit_code == 0

    assert (model / "result.txt").read_text() == LABELS


def test_image_files_is_a_list_with_commas(innereye: Invoke, model: Path, tmp_path: Path) -> None:
    words = ["--data_folder", tmp_path, "--image_files", "a.txt, b.txt"]
    (tmp_path / "a.txt").write_text(IMAGE)
    innereye("score", model, *words).refused(3, f"File b.txt does not exist in data folder {tmp_path}")


def test_nothing_is_written_into_a_registry(innereye: Invoke, model: Path, image: Path, registry: Path) -> None:
    innereye("register", model)
    folder = registry / "models" / "Toy" / "1" / "files" / "final_model"

    assert innereye("score", "--model_folder", folder).exit_code == 0

    assert Path("segmentation.nii.gz").read_text() == LABELS
    assert not (folder / "segmentation.nii.gz").exists()
    innereye("score", "--model_folder", folder).refused(3, "segmentation.nii.gz exists already")


def test_output_wins_over_the_model_folder_and_is_not_overwritten(innereye: Invoke, model: Path, image: Path) -> None:
    Path("a.txt").write_text("precious")
    innereye("score", "--model_folder", model, "--output", "a.txt").refused(3, "a.txt exists already")


@pytest.mark.parametrize("value", ["False", "false", "0"])
def test_use_gpu_false_computes_on_the_cpu(innereye: Invoke, model: Path, image: Path, value: str) -> None:
    assert innereye("score", model, image, "--use_gpu", value).exit_code == 0


def test_use_gpu_false_contradicts_a_gpu(innereye: Invoke, model: Path, image: Path) -> None:
    innereye("score", model, image, "--use_gpu", "False", "--device", "cuda").refused(2, "contradicts --use_gpu False")


def test_dicom_needs_a_plugin(innereye: Invoke, model: Path, image: Path) -> None:
    words = ["--use_dicom", "True", "--result_zip_dicom_name", "s.zip", "--model_id", "Toy:1"]
    innereye("score", model, image, *words).refused(6, "pip install innereye-dicom")


def test_device_and_runtime_reach_the_scorer(innereye: Invoke, model: Path, image: Path) -> None:
    innereye("score", model, image, "--device", "cuda").refused(6, "cuda", "pip install toy-gpu")
    innereye("score", model, image, "--runtime", "onnx").refused(6, "'onnx'", "pip install toy-gpu")


def test_images_twice(innereye: Invoke, model: Path, image: Path) -> None:
    innereye("score", model, image, "--image_files", "a").refused(2, "both as arguments and as --image_files")


def test_no_model(innereye: Invoke, model: Path) -> None:
    innereye("score").refused(2, "name a MODEL")


# --- the Python API ---------------------------------------------------------------------------------------------------


def test_score_from_python(model: Path, image: Path, tmp_path: Path) -> None:
    result = score(model, [image], output=tmp_path / "result.txt")
    assert (result.structures["bright"].voxels, result.model) == (2, str(model))


def test_one_statistics_file_or_several_from_python(model: Path, image: Path, tmp_path: Path) -> None:
    one = score(model, [image], output=tmp_path / "1.txt", statistics=tmp_path / "1.csv")
    two = score(model, [image], output=tmp_path / "2.txt", statistics=[tmp_path / "2.csv", str(tmp_path / "2.json")])
    assert one.statistics == (tmp_path / "1.csv",)
    assert two.statistics == (tmp_path / "2.csv", tmp_path / "2.json")


def test_loaded_model_is_verified_once_and_scores_many(model: Path, tmp_path: Path) -> None:
    loaded = load_model(model)
    for number, values in enumerate(("0.1 0.9", "0.9 0.9")):
        (tmp_path / f"{number}.txt").write_text(values)
        score(loaded, [tmp_path / f"{number}.txt"], output=tmp_path / f"result{number}.txt")
    assert [(tmp_path / f"result{number}.txt").read_text() for number in (0, 1)] == ["0 1", "1 1"]


def test_loaded_model_knows_its_id(innereye: Invoke, model: Path) -> None:
    innereye("register", model)
    assert (load_model("Toy:latest").title, load_model(model).title) == ("Toy:1", str(model))


def test_model_of_a_remote_registry_lives_as_long_as_it_is_used(
    innereye: Invoke, model: Path, image: Path, install: Callable[..., str], tmp_path: Path
) -> None:
    install(
        "acme",
        """
        from innereye_core import hookimpl
        from innereye_core.builtin.local_registry import LocalRegistry

        class Remote(LocalRegistry):
            name = "remote"

            def folder(self, model):
                return None

            def fetch(self, model, folder, progress):
                from innereye_core.manifest import copy_package, open_package

                copy_package(open_package(LocalRegistry.folder(self, model)), folder, progress)

        @hookimpl
        def innereye_registries():
            return [Remote]
        """,
    )
    innereye("register", model)

    loaded = load_model("Toy:1", "remote")

    assert score(loaded, [image], output=tmp_path / "result.txt").model == "Toy:1"
    folder = loaded.package.folder
    assert loaded.copy is not None
    loaded.copy.cleanup()
    assert not folder.exists()


def test_unlisted_segmentation_in_the_package_is_a_warning(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    (model / "segmentation.nii.gz").write_text("older result")
    load_model(model)
    assert "segmentation.nii.gz is not listed in manifest.json" in caplog.text


def test_unlisted_code_is_refused(model: Path) -> None:
    (model / "InnerEye" / "Common" / "sitecustomize.py").write_text("")
    with pytest.raises(IntegrityError, match=r"sitecustomize\.py is not listed"):
        load_model(model)


def test_reference_that_is_no_model(toy: Path) -> None:
    with pytest.raises(InputError, match="neither a package folder nor a model id"):
        load_model("not a model")


def test_config_of_innereye_in_a_package_of_ours(model: Path, tmp_path: Path) -> None:
    from innereye_core.manifest import open_package, write_manifest

    folder = shutil.copytree(model, tmp_path / "mixed" / "final_model")
    document = {"model_name": "X", "checkpoint_paths": ["a.ckpt"], "model_configs_namespace": "n"}
    (folder / "model_inference_config.json").write_text(json.dumps(document))
    manifest = open_package(folder).manifest
    write_manifest(folder, manifest, {record.path: record.role for record in manifest.files})

    with pytest.raises(InputError, match="is a package that InnerEye wrote, without the settings of its network"):
        load_model(folder)
