"""score.py: at the repository root it only explains itself; in a package it scores with the code beside it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import innereye_core

Run = Callable[..., Any]

ROOT = Path(__file__).resolve().parents[3]
PACKAGE_DATA = Path(innereye_core.__file__).parent / "package_data" / "score.py"

BARE = [sys.executable, "-I", "-S"]
"""Python without installed packages: neither innereye nor click can be imported."""

IMAGE = "0.1 0.15 0.25 0.9"
LABELS = "0 0 1 1"


# --- at the repository root -------------------------------------------------------------------------------------------


def test_script_at_the_root_is_the_one_that_is_packaged() -> None:
    if not (ROOT / "score.py").is_file():
        pytest.skip("not in a checkout of the repository")
    assert (ROOT / "score.py").read_bytes() == PACKAGE_DATA.read_bytes()


@pytest.mark.parametrize("words", [["--help"], ["image.nii.gz", "--help"]])
def test_help_works_with_nothing_installed_from_any_folder(process: Run, words: list[str]) -> None:
    outcome = process(*BARE, PACKAGE_DATA, *words).done()
    for option in (
        "--data_folder",
        "--model_folder",
        "--image_files",
        "--result_image_name",
        "--use_gpu",
        "--model_id",
    ):
        assert option in outcome.stdout


@pytest.mark.parametrize("words", [[], ["image.nii.gz"], ["--model_folder", "final_model"]])
def test_anything_else_says_that_it_belongs_in_a_package(process: Run, words: list[str]) -> None:
    process(*BARE, PACKAGE_DATA, *words).refused(2, "belongs in a package", "'innereye score'")


# --- in a package -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(packaged: Path, tmp_path: Path) -> Path:
    """A package, moved away from its run; an image lies in the folder above it."""
    folder = tmp_path / "elsewhere" / "final_model"
    shutil.copytree(packaged, folder)
    (folder.parent / "test.nii.gz").write_text(IMAGE)
    return folder


@pytest.fixture
def score(folder: Path, process: Run, tmp_path: Path) -> Run:
    """Run the package's score.py from the folder above it, where an installed toolbox would be a trap."""
    for name in ("innereye_core", "toy_innereye"):
        trap = tmp_path / "trap" / name
        trap.mkdir(parents=True)
        (trap / "__init__.py").write_text("raise SystemExit('an installed copy was used')\n")

    def run(*words: object, cwd: Path | None = None) -> Any:
        trap = str(tmp_path / "trap")
        return process(sys.executable, folder / "score.py", *words, folder=cwd or folder.parent, PYTHONPATH=trap)

    return run


def test_defaults_are_innereyes(score: Run, folder: Path) -> None:
    (folder / "segmentation.nii.gz").write_text("older result")

    outcome = score()

    assert outcome.exit_code == 0, outcome
    assert (folder / "segmentation.nii.gz").read_text() == LABELS


def test_it_runs_from_any_folder(score: Run, folder: Path, tmp_path: Path) -> None:
    assert score("--data_folder", folder.parent, cwd=tmp_path).exit_code == 0
    assert (folder / "segmentation.nii.gz").read_text() == LABELS


def test_images_as_arguments_and_json(score: Run, folder: Path) -> None:
    document = score("test.nii.gz", "--output", "result.txt", "--json").json
    assert (document["segmentation"], document["structures"]["bright"]["voxels"]) == ("result.txt", 2)
    assert (folder.parent / "result.txt").read_text() == LABELS


def test_only_the_code_in_the_package_is_used_and_it_stays_as_it_is(score: Run, folder: Path) -> None:
    before = sorted(path for path in folder.rglob("*"))

    assert score("--output", "result.txt").exit_code == 0

    assert sorted(path for path in folder.rglob("*")) == before


def test_help_of_the_package(score: Run) -> None:
    outcome = score("--help").done()
    assert "Example: python final_model/score.py" in outcome.stdout
    assert "--result_zip_dicom_name" in outcome.stdout


def test_missing_image_is_one_line(score: Run) -> None:
    score("--image_files", "gone.nii.gz").refused(3, "File gone.nii.gz does not exist in data folder")


def test_changed_checkpoint_is_refused(score: Run, folder: Path) -> None:
    checkpoint = next((folder / "checkpoints").iterdir())
    checkpoint.write_text(json.dumps({"epoch": 2, "weights": {"threshold": 0.9}}))
    score().refused(4, f"{checkpoint.name} has changed")
    assert not (folder / "segmentation.nii.gz").exists()


def test_added_code_is_refused(score: Run, folder: Path) -> None:
    (folder / "click.py").write_text("raise SystemExit('a file of the folder was imported')\n")
    score().refused(4, "click.py is not listed")


def test_model_folder_must_be_its_own(score: Run, folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other" / "final_model")
    assert score("--model_folder", folder).exit_code == 0
    score("--model_folder", other).refused(
        4, "its own code was not used", "run the score.py that lies in the model folder"
    )


def test_inside_a_registry_nothing_is_written(score: Run, folder: Path, process: Run, registry: Path) -> None:
    process(sys.executable, "-m", "innereye_core", "register", folder).done()
    registered = registry / "models" / "Toy" / "1" / "files" / "final_model"

    outcome = process(sys.executable, registered / "score.py", folder=folder.parent)

    assert outcome.exit_code == 0, outcome
    assert (folder.parent / "segmentation.nii.gz").read_text() == LABELS
    assert not (registered / "segmentation.nii.gz").exists()
