"""Making a package: its layout, what each file says, what is refused, and that nothing is left when it fails."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import innereye_core
from innereye_core import PackageOptions, SelectionOptions, package
from innereye_core.config_files import PackagedConfig, read_inference_config
from innereye_core.digests import sha256_of_file
from innereye_core.errors import InputError, IntegrityError, MissingPluginError, RegistryError, UsageError
from innereye_core.host import Host
from innereye_core.manifest import verify
from innereye_core.model import Package, PluginRecord, RunRecord

Install = Callable[..., str]


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def source_files_of(folder: Path) -> set[str]:
    return {path for path in files(folder) if "__pycache__" not in path}


def document(package: Package, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((package.folder / name).read_text())
    return content


def assert_nothing_made(run: Path) -> None:
    assert not [path.name for path in run.iterdir() if "final" in path.name or "staging" in path.name]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, toy_site: Path) -> Package:
    """A package of a run whose second epoch is best; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(toy_site)
        patch.setenv("INNEREYE_LOAD_PLUGINS", "toy")
        run = tmp_path_factory.mktemp("made") / "run"
        write_scored_run(run)
        return package(run, host=Host())


def write_scored_run(run: Path) -> None:
    (run / "checkpoints").mkdir(parents=True)
    (run / "model.yaml").write_text(
        "schema_version: 1\nmodel_name: Toy\nimage_channels: [ct]\n"
        "structures: [{name: bright}, {name: dark, display_name: Dark matter}]\n"
        "input: {spacing_xyz_mm: [1, 1, 2.5], orientation: LPS}\n"
        "network: {factory: toy_innereye.networks:Threshold}\ninference: {crop_size_zyx: [4, 8, 8]}\n"
    )
    (run / "environment.yml").write_text("name: toy\nchannels: [conda-forge]\ndependencies: [python>=3.11]\n")
    (run / "run.json").write_text('{"id": "r1", "name": "Toy run"}')
    for epoch, dice in ((1, 0.5), (2, 0.9), (3, 0.7)):
        content = {"epoch": epoch, "weights": {"threshold": epoch / 10}, "optimizer": [1, 2], "seed": 7}
        (run / "checkpoints" / f"{epoch}_checkpoint.pth.tar").write_text(json.dumps(content))
        metrics = run / f"epoch_{epoch:03d}" / "Val" / "metrics.csv"
        metrics.parent.mkdir(parents=True)
        metrics.write_text(f"Patient,Structure,Dice\np1,bright,{dice}\np1,dark,\np2,bright,{dice}\np2,dark,0.1\n")


# --- layout -----------------------------------------------------------------------------------------------------------


def test_top_of_the_folder(made: Package) -> None:
    assert {path.name for path in made.folder.iterdir()} == {
        "score.py",
        "environment.yml",
        "model_inference_config.json",
        "InnerEye",
        "checkpoints",
        "manifest.json",
        "validation.json",
        "README.md",
    }


def test_toolbox_is_a_full_copy_of_what_is_installed(made: Package, toy_site: Path) -> None:
    core, toy = Path(innereye_core.__file__).parent, toy_site / "toy_innereye"
    for copy, source in (("InnerEye/Common/innereye_core", core), ("InnerEye/Plugins/toy_innereye", toy)):
        assert files(made.folder / copy) == source_files_of(source)
        for path in source_files_of(source):
            assert (made.folder / copy / path).read_bytes() == (source / path).read_bytes()


def test_checkpoint_keeps_its_name_and_container_and_has_the_weights_alone(made: Package) -> None:
    assert files(made.folder / "checkpoints") == {"2_checkpoint.pth.tar"}
    assert document(made, "checkpoints/2_checkpoint.pth.tar") == {"epoch": 2, "weights": {"threshold": 0.2}}


def test_entry_script_is_the_one_of_core(made: Package) -> None:
    source = Path(innereye_core.__file__).parent / "package_data" / "score.py"
    assert (made.folder / "score.py").read_bytes() == source.read_bytes()


def test_package_is_what_its_manifest_says(made: Package) -> None:
    assert verify(made) == ()
    assert {record.path for record in made.manifest.files} == files(made.folder) - {"manifest.json"}


def test_every_file_has_a_role(made: Package) -> None:
    roles = {record.path.partition("/")[0]: record.role for record in made.manifest.files}
    assert roles == {
        "score.py": "entry",
        "environment.yml": "environment",
        "model_inference_config.json": "config",
        "InnerEye": "toolbox",
        "checkpoints": "checkpoint",
        "validation.json": "validation",
        "README.md": "card",
    }


# --- manifest.json ----------------------------------------------------------------------------------------------------


def test_manifest_names_the_run(made: Package) -> None:
    assert made.manifest.run == RunRecord("r1", "Toy run", "local")


def test_manifest_names_the_plugins_to_load(made: Package) -> None:
    assert made.manifest.plugins == (PluginRecord("toy", "toy_innereye.plugin", "toy-innereye", "1.0"),)


def test_manifest_says_where_the_checkpoint_came_from_and_what_was_left_out(made: Package) -> None:
    (member,) = made.manifest.members
    source = made.folder.parent / "checkpoints" / "2_checkpoint.pth.tar"

    assert (member.path, member.run, member.fold) == ("checkpoints/2_checkpoint.pth.tar", "r1", None)
    assert member.checkpoint.source_sha256 == sha256_of_file(source)
    assert member.checkpoint.source_size == source.stat().st_size
    assert (member.checkpoint.source_name, member.checkpoint.stored_epoch) == (source.name, 2)
    assert member.checkpoint.removed == ("optimizer", "seed")


def test_manifest_says_how_the_checkpoint_was_chosen(made: Package) -> None:
    (member,) = made.manifest.members
    assert (member.epoch, member.candidates, member.policy) == (2, 3, "best_validation_dice")
    assert member.score == pytest.approx((0.9 + (0.9 + 0.1) / 2) / 2)


def test_manifest_has_the_versions_of_python_toolbox_and_what_it_needs(made: Package) -> None:
    versions = made.manifest.versions
    assert versions["python"] == platform.python_version()
    assert (versions["innereye-core"], versions["toy-innereye"]) == (innereye_core.__version__, "1.0")
    assert versions["pydantic"] == importlib.metadata.version("pydantic")


# --- the other documents ----------------------------------------------------------------------------------------------


def test_config_has_everything_settled(made: Package) -> None:
    packaged = read_inference_config(made.folder / "model_inference_config.json")

    assert isinstance(packaged, PackagedConfig)
    assert packaged.checkpoint_paths == ("checkpoints/2_checkpoint.pth.tar",)
    assert packaged.config.inference.stitching == "average"
    network = packaged.config.network
    assert (network.size_multiple_zyx, network.minimum_size_zyx) == ((2, 4, 4), (2, 4, 4))
    assert network.output_size_zyx == (4, 8, 8)


def test_validation_has_every_candidate_subject_and_structure(made: Package) -> None:
    validation = document(made, "validation.json")

    assert (validation["schema_version"], validation["evaluated"]) == (1, True)
    assert validation["selected"] == {"epoch": 2, "checkpoints": ["checkpoints/2_checkpoint.pth.tar"]}
    assert [candidate["epoch"] for candidate in validation["candidates"]] == [1, 2, 3]
    assert validation["candidates"][1]["structures"] == pytest.approx({"bright": 0.9, "dark": 0.1})
    assert validation["candidates"][1]["subjects"] == [
        {"subject": "p1", "score": 0.9, "structures": {"bright": 0.9, "dark": None}},
        {"subject": "p2", "score": 0.5, "structures": {"bright": 0.9, "dark": 0.1}},
    ]


def test_chosen_epoch_has_the_best_dice_of_the_table(made: Package) -> None:
    validation = document(made, "validation.json")
    best = max(validation["candidates"], key=lambda candidate: candidate["score"])
    assert best["epoch"] == validation["selected"]["epoch"]


def test_card_tells_people_what_the_model_is_and_how_well_it_did(made: Package) -> None:
    card = (made.folder / "README.md").read_text()
    for words in (
        "# Toy\n",
        "Segments bright, Dark matter on ct images of 1 × 1 × 2.5 mm in LPS orientation.",
        "Not a medical device",
        "python score.py ct.nii.gz",
        "| 2 | Dark matter |",
        "| checkpoints/2_checkpoint.pth.tar | 2 | 0.700 | 0.900 | 0.100 |",
        "Trained in run `r1`.",
    ):
        assert words in card


# --- one candidate ----------------------------------------------------------------------------------------------------


def test_one_candidate_ships_without_evaluation(run_folder: Path, host: Host) -> None:
    made = package(run_folder, SelectionOptions(epochs_to_test=(3,)), host=host)

    validation = document(made, "validation.json")
    assert (validation["evaluated"], validation["selected"]["epoch"]) == (False, 3)
    assert validation["candidates"] == [{"epoch": 3, "score": None, "structures": {}, "subjects": []}]
    assert made.manifest.members[0].score is None
    assert "chosen without evaluating it" in (made.folder / "README.md").read_text()


# --- where it goes ----------------------------------------------------------------------------------------------------


def test_package_lies_in_the_run_or_where_it_is_wanted(run_folder: Path, host: Host, tmp_path: Path) -> None:
    assert package(run_folder, host=host).folder == run_folder / "final_model"
    assert (
        package(run_folder, output=tmp_path / "new" / "place", host=host).folder == tmp_path / "new/place/final_model"
    )


def test_existing_package_is_refused_before_any_work(run_folder: Path, host: Host, opened: list[str]) -> None:
    (run_folder / "final_model").mkdir()
    (run_folder / "final_model" / "mine.txt").write_text("precious")

    with pytest.raises(RegistryError, match=r"final_model exists already; give --replace"):
        package(run_folder, host=host)

    assert files(run_folder / "final_model") == {"mine.txt"}
    assert opened == []


def test_existing_package_is_replaced_as_a_whole_where_that_is_asked_for(run_folder: Path, host: Host) -> None:
    first = package(run_folder, host=host)
    (first.folder / "segmentation.nii.gz").write_text("old")

    second = package(run_folder, SelectionOptions(policy="last"), PackageOptions(replace=True), host=host)

    assert second.manifest.members[0].epoch == 3
    assert verify(second) == ()


# --- what fails leaves nothing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ('{"threshold": NaN}', IntegrityError, r"2_checkpoint\.pth\.tar: weight threshold is nan"),
        ('{"sharpness": 1}', InputError, r"has the weights \['sharpness'\], not \['threshold'\]"),
    ],
    ids=["NaN", "other keys"],
)
def test_checkpoint_that_cannot_be_used(
    run_folder: Path, host: Host, weights: str, error: type[Exception], message: str
) -> None:
    path = run_folder / "checkpoints" / "2_checkpoint.pth.tar"
    path.write_text(f'{{"epoch": 2, "weights": {weights}}}')

    with pytest.raises(error, match=message):
        package(run_folder, host=host)

    assert_nothing_made(run_folder)


PACKAGERS = """
    from innereye_core import hookimpl
    from innereye_core.builtin.packager import InnerEyePackager

    class Failing(InnerEyePackager):
        name = "failing"
        def build(self, plan, folder):
            super().build(plan, folder)
            raise RuntimeError("out of ideas")

    class Forgetful(InnerEyePackager):
        name = "forgetful"
        def build(self, plan, folder):
            super().build(plan, folder)
            (folder / "README.md").unlink()

    class Generous(InnerEyePackager):
        name = "generous"
        def build(self, plan, folder):
            super().build(plan, folder)
            (folder / "NOTICE.txt").write_text(", ".join(plan.config.structure_names))

    @hookimpl
    def innereye_packagers():
        return [Failing, Forgetful, Generous]
"""


@pytest.mark.parametrize(
    ("packager", "error", "message"),
    [
        ("failing", RuntimeError, "out of ideas"),
        ("forgetful", IntegrityError, r"README\.md is missing; the packager must write every planned file"),
    ],
)
def test_packager_that_fails(
    run_folder: Path, toy: Path, install: Install, packager: str, error: type[Exception], message: str
) -> None:
    install("acme", PACKAGERS)

    with pytest.raises(error, match=message):
        package(run_folder, packaging=PackageOptions(packager=packager), host=Host())

    assert_nothing_made(run_folder)


def test_files_that_a_packager_adds_are_part_of_the_package(run_folder: Path, toy: Path, install: Install) -> None:
    install("acme", PACKAGERS)

    made = package(run_folder, packaging=PackageOptions(packager="generous"), host=Host())

    assert verify(made) == ()
    assert {record.path: record.role for record in made.manifest.files}["NOTICE.txt"] == "other"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PackageOptions(packager="zip"), "packager 'zip'"),
        (PackageOptions(merge_strategy="pip"), "merge strategy 'pip'"),
    ],
)
def test_unknown_ways_to_package(run_folder: Path, host: Host, options: PackageOptions, message: str) -> None:
    with pytest.raises(UsageError, match=f"there is no {message}"):
        package(run_folder, packaging=options, host=host)
    assert_nothing_made(run_folder)


def test_no_plugin_that_builds_the_network(
    run_folder: Path, toy: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(
        "acme",
        """
        from innereye_core import hookimpl

        @hookimpl
        def innereye_checkpoint_formats():
            from toy_innereye.checkpoints import NumberedCheckpoints

            return [NumberedCheckpoints]
        """,
    )
    monkeypatch.setenv("INNEREYE_DISABLED_PLUGINS", "toy")

    with pytest.raises(MissingPluginError, match="no installed plugin can build the network: pip install"):
        package(run_folder, host=Host())

    assert_nothing_made(run_folder)
