"""Ensembles of cross-validation folds: which folds, which versions, which tags, and what must agree."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from innereye_core import PackageOptions, RegistrationOptions, SelectionOptions, deploy, package, register
from innereye_core.builtin.local_registry import LocalRegistry
from innereye_core.config_files import PackagedConfig, read_inference_config
from innereye_core.deployment import Deployment
from innereye_core.errors import InputError, MissingPluginError, RegistryError
from innereye_core.host import Host
from innereye_core.manifest import verify


@pytest.fixture(autouse=True)
def _own_registry(registry: Path) -> None:
    """Every test here registers in a registry of its own."""


def record(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "run.json").read_text())
    return content


def describe(folder: Path, **keys: object) -> None:
    document = record(folder) if (folder / "run.json").is_file() else {"id": f"id-{folder.name}"}
    (folder / "run.json").write_text(json.dumps({**document, **keys}))


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, toy_site: Path, new_folds: Callable[[Path], Path]) -> Deployment:
    """An ensemble of three folds in a registry of its own; not to be changed."""
    folder = tmp_path_factory.mktemp("deployed")
    parent = new_folds(folder / "parent")
    describe(parent, id="p1", name="Prostate CV", tags={"site": "Basel"})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(toy_site)
        patch.setenv("INNEREYE_LOAD_PLUGINS", "toy")
        patch.setenv("INNEREYE_REGISTRY_DIR", str(folder / "registry"))
        return deploy(parent, ensemble=True, host=Host())


# --- deploy -----------------------------------------------------------------------------------------------------------


def test_children_get_the_first_versions_and_the_ensemble_the_next(deployed: Deployment) -> None:
    assert [child.model.id for child in deployed.children] == ["Toy:1", "Toy:2", "Toy:3"]
    assert deployed.model.id == "Toy:4"


def test_every_fold_has_its_own_package(deployed: Deployment) -> None:
    for fold, child in enumerate(deployed.children):
        assert child.package.folder == deployed.run.folder / str(fold) / "final_model"
        assert verify(child.package) == ()
        assert [member.epoch for member in child.package.manifest.members] == [fold + 1]


def test_every_run_is_tagged_with_its_own_model(deployed: Deployment) -> None:
    tags = [
        record(folder)["tags"] for folder in (*(child.run.folder for child in deployed.children), deployed.run.folder)
    ]
    ids = [tag["model_id"] for tag in tags if isinstance(tag, dict)]
    assert ids == ["Toy:1", "Toy:2", "Toy:3", "Toy:4"]


def test_model_of_a_fold_says_which_fold_of_what_it_is(deployed: Deployment) -> None:
    assert deployed.children[1].model.tags == {
        "is_ensemble": "False",
        "parent_run_id": "p1",
        "cross_validation_split_index": "1",
    }


def test_ensemble_has_the_tags_of_the_parent_run(deployed: Deployment) -> None:
    assert deployed.model.tags == {"site": "Basel", "is_ensemble": "True"}


def test_properties_and_description_name_every_fold(deployed: Deployment) -> None:
    properties = deployed.model.properties
    assert (properties["run_id"], properties["epoch"]) == ("p1", "1,2,3")
    assert properties["validation_dice"] == "0.900000,0.900000,0.900000"
    assert deployed.model.description == (
        "Ensemble of 3 cross-validation folds: "
        "fold 0 epoch 1 (Dice 0.9000), fold 1 epoch 2 (Dice 0.9000), fold 2 epoch 3 (Dice 0.9000)."
    )


def test_ensemble_has_one_checkpoint_per_fold(deployed: Deployment) -> None:
    assert deployed.package.folder == deployed.run.folder / "final_ensemble_model"
    paths = (
        "checkpoints/0/1_checkpoint.pth.tar",
        "checkpoints/1/2_checkpoint.pth.tar",
        "checkpoints/2/3_checkpoint.pth.tar",
    )
    assert tuple(member.path for member in deployed.package.manifest.members) == paths
    packaged = read_inference_config(deployed.package.folder / "model_inference_config.json")
    assert isinstance(packaged, PackagedConfig)
    assert packaged.checkpoint_paths == paths


def test_manifest_of_the_ensemble_names_runs_and_folds(deployed: Deployment) -> None:
    manifest = deployed.package.manifest
    assert (manifest.kind, manifest.run.id) == ("final_ensemble_model", "p1")
    assert [(member.fold, member.run) for member in manifest.members] == [
        (str(fold), record(deployed.run.folder / str(fold))["id"]) for fold in range(3)
    ]


def test_validation_of_the_ensemble_has_the_table_of_every_fold(deployed: Deployment) -> None:
    validation = json.loads((deployed.package.folder / "validation.json").read_text())

    assert validation["evaluated"] is True
    assert list(validation["folds"]) == ["0", "1", "2"]
    assert validation["folds"]["2"]["selected"] == {"epoch": 3, "checkpoints": ["checkpoints/2/3_checkpoint.pth.tar"]}
    assert [candidate["epoch"] for candidate in validation["folds"]["0"]["candidates"]] == [1, 2, 3]


def test_card_of_the_ensemble_has_a_line_per_fold(deployed: Deployment) -> None:
    card = (deployed.package.folder / "README.md").read_text()
    for fold in range(3):
        assert f"| checkpoints/{fold}/{fold + 1}_checkpoint.pth.tar | {fold + 1} | 0.900 | 0.900 |" in card


def test_package_of_a_fold_registered_later_still_knows_its_fold(folds: Path, host: Host) -> None:
    made = package(folds / "1", host=host)
    model = register(made.folder, host=host)
    assert model.tags["cross_validation_split_index"] == "1"


def test_children_go_below_the_output_too(folds: Path, host: Host, tmp_path: Path) -> None:
    deploy(folds, ensemble=True, output=tmp_path / "out", host=host)
    packages = sorted(
        path.parent.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("score.py")
    )
    assert [path for path in packages if "InnerEye" not in path] == [
        "0/final_model",
        "1/final_model",
        "2/final_model",
        "final_ensemble_model",
    ]


def test_options_go_to_every_fold(folds: Path, host: Host) -> None:
    deployment = deploy(
        folds,
        SelectionOptions(policy="last"),
        registration=RegistrationOptions(name="Mine", tags={"site": "Bern"}),
        ensemble=True,
        host=host,
    )
    assert [child.model.id for child in deployment.children] == ["Mine:1", "Mine:2", "Mine:3"]
    assert all(child.model.tags["site"] == "Bern" for child in (*deployment.children, deployment))
    assert [member.epoch for member in deployment.package.manifest.members] == [3, 3, 3]


# --- package ----------------------------------------------------------------------------------------------------------


def test_packaging_an_ensemble_neither_packages_nor_registers_the_children(folds: Path, host: Host) -> None:
    made = package(folds, ensemble=True, host=host)

    assert made.folder == folds / "final_ensemble_model"
    assert not list(folds.glob("*/final_model"))
    assert LocalRegistry().models() == []
    assert "model_id" not in json.dumps(record(folds))


def test_members_that_were_not_evaluated(folds: Path, host: Host) -> None:
    made = package(folds, SelectionOptions(epochs_to_test=(2,)), ensemble=True, host=host)

    validation = json.loads((made.folder / "validation.json").read_text())
    assert validation["evaluated"] is False
    assert "chosen without evaluating it" in (made.folder / "README.md").read_text()


# --- what is there already --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["final_ensemble_model", "1/final_model"])
def test_one_existing_package_stops_everything_before_it_begins(
    folds: Path, host: Host, opened: list[str], where: str
) -> None:
    (folds / where).mkdir()

    with pytest.raises(RegistryError, match=f"{where} exists already"):
        deploy(folds, ensemble=True, host=host)

    assert opened == []
    assert LocalRegistry().models() == []


def test_replace_replaces_all_packages(folds: Path, host: Host) -> None:
    deploy(folds, ensemble=True, host=host)
    again = deploy(folds, packaging=PackageOptions(replace=True), ensemble=True, host=host)
    assert again.model.id == "Toy:8"


def test_broken_fold_leaves_nothing_registered(folds: Path, host: Host) -> None:
    (folds / "2" / "checkpoints" / "3_checkpoint.pth.tar").write_text("garbage")

    with pytest.raises(InputError, match=r"2/checkpoints/3_checkpoint\.pth\.tar: is no toy checkpoint"):
        deploy(folds, ensemble=True, host=host)

    assert LocalRegistry().models() == []
    assert not (folds / "final_ensemble_model").exists()


# --- folds that are missing -------------------------------------------------------------------------------------------


def test_gap_between_folds(folds: Path, host: Host) -> None:
    shutil.rmtree(folds / "1")
    with pytest.raises(InputError, match=r"parent: fold 1 is not there; finish it, or pass --allow-missing-folds"):
        deploy(folds, ensemble=True, host=host)


@pytest.mark.parametrize("where", ["properties", "tags"])
def test_parent_says_how_many_folds_there_must_be(folds: Path, host: Host, where: str) -> None:
    describe(folds, **{where: {"number_of_cross_validation_splits": "5"}})
    with pytest.raises(InputError, match=r"fold 3 is not there, fold 4 is not there; finish it"):
        package(folds, ensemble=True, host=host)


def test_fold_without_a_checkpoint(folds: Path, host: Host) -> None:
    shutil.rmtree(folds / "0" / "checkpoints")
    with pytest.raises(InputError, match=r"fold 0 has no checkpoint; finish it"):
        package(folds, ensemble=True, host=host)


@pytest.mark.parametrize("status", ["failed", "Failed", "canceled", "CANCELLED", "Running", "queued"])
def test_fold_that_failed(folds: Path, host: Host, status: str) -> None:
    describe(folds / "2", status=status)
    with pytest.raises(InputError, match=rf"fold 2 is {status}; finish it"):
        package(folds, ensemble=True, host=host)


def test_missing_folds_may_be_allowed(folds: Path, host: Host, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(folds / "1")

    with caplog.at_level(logging.WARNING):
        deployment = deploy(folds, ensemble=True, allow_missing_folds=True, host=host)

    assert [member.fold for member in deployment.package.manifest.members] == ["0", "2"]
    assert [child.model.id for child in deployment.children] == ["Toy:1", "Toy:2"]
    assert "ensemble without all folds: fold 1 is not there" in caplog.text


def test_one_fold_makes_no_ensemble(folds: Path, host: Host) -> None:
    shutil.rmtree(folds / "1")
    shutil.rmtree(folds / "2")
    with pytest.raises(InputError, match=r"an ensemble needs at least two folds, and there is 1"):
        package(folds, ensemble=True, allow_missing_folds=True, host=host)


def test_run_without_folds_makes_no_ensemble(run_folder: Path, host: Host) -> None:
    with pytest.raises(InputError, match=r"run: has no child runs 0, 1, …"):
        deploy(run_folder, ensemble=True, host=host)


def test_no_plugin_that_reads_checkpoints(folds: Path) -> None:
    with pytest.raises(MissingPluginError, match="no installed plugin reads checkpoints"):
        package(folds, ensemble=True, host=Host())


# --- what the folds must share ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("structures", "bright", "bright, fill_holes: true"),
        ("inference", "[4, 8, 8]", "[4, 8, 16]"),
        ("model_name", "model_name: Toy", "model_name: Other"),
    ],
)
def test_folds_with_different_configs_make_no_ensemble(folds: Path, host: Host, key: str, old: str, new: str) -> None:
    text = (folds / "model.yaml").read_text()
    assert old in text
    (folds / "2" / "model.yaml").write_text(text.replace(old, new))

    with pytest.raises(InputError, match=rf"parent/2: {key} in its model config differs from .*parent/0"):
        package(folds, ensemble=True, host=host)


def test_folds_may_have_different_epochs_to_test(folds: Path, host: Host) -> None:
    (folds / "2" / "model.yaml").write_text((folds / "model.yaml").read_text() + "epochs_to_test: [1]\n")
    made = package(folds, ensemble=True, host=host)
    assert [member.epoch for member in made.manifest.members] == [1, 2, 1]


def add_code(folder: Path, comment: str) -> None:
    code = folder / "YourCode"
    code.mkdir()
    (code / "nets.py").write_text(f"from toy_innereye.networks import Threshold  # {comment}\n")
    text = (folder.parent / "model.yaml").read_text().replace("toy_innereye.networks", "YourCode.nets")
    (folder / "model.yaml").write_text(f"{text}extra_code_directory: YourCode\n")


def test_folds_with_copies_of_the_same_code(folds: Path, host: Host) -> None:
    for fold in range(3):
        add_code(folds / str(fold), "the same")
    assert package(folds, ensemble=True, host=host).manifest.extra_code == "YourCode"


def test_folds_with_different_code_make_no_ensemble(folds: Path, host: Host) -> None:
    for fold in range(3):
        add_code(folds / str(fold), "new" if fold == 1 else "old")
    with pytest.raises(InputError, match=r"the folds have different extra code; give one with --extra-code-directory"):
        package(folds, ensemble=True, host=host)
