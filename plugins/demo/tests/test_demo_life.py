"""``innereye demo`` from end to end, as a user starts it: what it leaves on disk, and what it says."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from innereye_core import load_model
from innereye_core.manifest import open_package, verify
from innereye_core.registered_models import find_model

PACKAGE_FILES = {
    "score.py",
    "environment.yml",
    "model_inference_config.json",
    "manifest.json",
    "validation.json",
    "README.md",
    "InnerEye/Common/innereye_core/__init__.py",
    "InnerEye/ML/innereye_imaging/__init__.py",
    "InnerEye/ML/innereye_segmentation/__init__.py",
}


@pytest.fixture
def folder(finished_demo: Any) -> Path:
    path: Path = finished_demo.folder
    return path


@pytest.fixture
def validation(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "run" / "final_model" / "validation.json").read_text())
    return document


@pytest.fixture
def demo_registry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNEREYE_REGISTRY_DIR", str(folder / "registry"))


def volume(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Voxels (x, y, z) and affine of a NIfTI file."""
    image = nibabel.Nifti1Image.from_filename(path)
    return np.asarray(image.dataobj), image.affine


def chosen(validation: dict[str, Any]) -> dict[str, Any]:
    candidates = {candidate["epoch"]: candidate for candidate in validation["candidates"]}
    candidate: dict[str, Any] = candidates[validation["selected"]["epoch"]]
    return candidate


def test_folder_holds_what_is_promised(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "image.nii.gz",
        "segmentation.nii.gz",
        "overlay.png",
        "run",
        "registry",
    }


def test_run_has_a_checkpoint_per_epoch(folder: Path) -> None:
    names = {path.name for path in (folder / "run" / "checkpoints").iterdir()}

    assert names == {f"{epoch}_checkpoint.pth.tar" for epoch in range(1, 11)}
    assert (folder / "run" / "model.yaml").is_file()
    assert (folder / "run" / "environment.yml").is_file()


def test_package_is_complete_and_as_its_manifest_says(folder: Path, validation: dict[str, Any]) -> None:
    package = open_package(folder / "run" / "final_model")

    files = {path.relative_to(package.folder).as_posix() for path in package.folder.rglob("*") if path.is_file()}
    epoch = validation["selected"]["epoch"]
    assert files >= PACKAGE_FILES | {f"checkpoints/{epoch}_checkpoint.pth.tar"}
    assert verify(package) == ()


def test_chosen_epoch_has_the_best_dice(validation: dict[str, Any]) -> None:
    assert len(validation["candidates"]) == 10
    assert chosen(validation)["score"] == max(candidate["score"] for candidate in validation["candidates"])


def test_both_tissues_are_found_where_the_network_was_not_trained(validation: dict[str, Any]) -> None:
    structures = chosen(validation)["structures"]

    assert set(structures) == {"grey_matter", "white_matter"}
    assert min(structures.values()) > 0.8


def test_model_is_registered_below_the_output_folder(folder: Path, demo_registry: None) -> None:
    assert find_model("BrainTissue:1", "local").id == "BrainTissue:1"
    assert load_model("BrainTissue:latest", "local").id == "BrainTissue:1"
    assert json.loads((folder / "run" / "run.json").read_text())["tags"]["model_id"] == "BrainTissue:1"
    assert not (folder.parent / "another registry").exists()


def test_segmentation_lies_on_the_grid_of_the_image(folder: Path) -> None:
    image, image_affine = volume(folder / "image.nii.gz")
    labels, labels_affine = volume(folder / "segmentation.nii.gz")

    assert labels.shape == image.shape
    np.testing.assert_array_equal(labels_affine, image_affine)
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 1, 2}


def test_segmentation_of_the_held_out_region_agrees_with_its_masks(folder: Path) -> None:
    """The registered model does in the whole brain what the validation promised for the region."""
    labels, affine = volume(folder / "segmentation.nii.gz")
    for label, name in enumerate(("grey_matter", "white_matter"), start=1):
        mask, mask_affine = volume(folder / "run" / "data" / f"held_out_{name}.nii.gz")
        first = np.linalg.solve(affine, mask_affine[:, 3]).round().astype(int)[:3]
        x, y, z = (slice(start, start + size) for start, size in zip(first, mask.shape, strict=True))
        found = labels[x, y, z] == label
        assert 2 * np.count_nonzero(found & (mask > 0)) / (np.count_nonzero(found) + np.count_nonzero(mask)) > 0.8


def test_training_and_validation_do_not_touch_in_space(folder: Path) -> None:
    ranges: dict[str, tuple[float, float]] = {}
    with (folder / "run" / "dataset.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            voxels, affine = volume(folder / "run" / row["filePath"])
            ends = (affine @ (0, index, 0, 1) for index in (-0.5, voxels.shape[1] - 0.5))
            back, front = sorted(float(end[1]) for end in ends)
            first = ranges.setdefault(row["split"], (back, front))
            assert first == (back, front)

    assert set(ranges) == {"train", "val"}
    assert ranges["val"][0] - ranges["train"][1] == pytest.approx(8)


def test_overlay_is_a_picture_in_colour(folder: Path) -> None:
    picture = imread(folder / "overlay.png")

    height, width = picture.shape[:2]
    assert width >= 1000
    assert height >= 400
    red, green, blue = (picture[..., channel] for channel in range(3))
    orange, sky = (red > blue + 0.3), (blue > red + 0.3)
    assert np.count_nonzero(orange) > 1000
    assert np.count_nonzero(sky) > 1000
    assert np.count_nonzero((red == green) & (green == blue)) > 0.2 * red.size


def test_end_names_the_model_and_the_files_to_look_at(finished_demo: Any) -> None:
    said = finished_demo.process.stdout

    assert re.search(r"^model +BrainTissue:1$", said, re.MULTILINE)
    assert str(Path("brain") / "segmentation.nii.gz") in said
    assert str(Path("brain") / "overlay.png") in said
    assert f"export INNEREYE_REGISTRY_DIR={finished_demo.folder / 'registry'}" in said


def test_table_shows_every_epoch_and_marks_the_chosen_one(finished_demo: Any, validation: dict[str, Any]) -> None:
    rows = re.findall(
        r"^(→|  ) *(\d+) +(0\.\d{4}) +(0\.\d{4}) +(0\.\d{4})$", finished_demo.process.stdout, re.MULTILINE
    )

    assert [int(row[1]) for row in rows] == list(range(1, 11))
    assert [int(row[1]) for row in rows if row[0] == "→"] == [validation["selected"]["epoch"]]


def test_what_the_figures_do_not_mean_is_said(finished_demo: Any) -> None:
    said = " ".join(finished_demo.process.stdout.split())

    assert "Held out for validation: y from +14 to +98 mm; trained on: y from -134 to +4 mm" in said
    assert "not that the model would find the tissues of another person" in said


def test_nothing_is_said_on_stderr(finished_demo: Any) -> None:
    assert finished_demo.process.stderr == ""


@pytest.mark.slow
def test_folds_become_an_ensemble(run_demo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    finished = run_demo("--folds", "3")
    run, registry = finished.folder / "run", finished.folder / "registry"
    monkeypatch.setenv("INNEREYE_REGISTRY_DIR", str(registry))

    ensemble = load_model("BrainTissue:4", "local")
    tags = [json.loads((run / fold / "run.json").read_text())["tags"]["model_id"] for fold in ("0", "1", "2")]
    labels, _ = volume(finished.folder / "segmentation.nii.gz")
    assert [path.parent.name for path in ensemble.files.checkpoints] == ["0", "1", "2"]
    assert (run / "final_ensemble_model" / "manifest.json").is_file()
    assert tags == ["BrainTissue:1", "BrainTissue:2", "BrainTissue:3"]
    assert json.loads((run / "run.json").read_text())["tags"]["model_id"] == "BrainTissue:4"
    assert all(min(chosen(fold_validation(run / fold))["structures"].values()) > 0.8 for fold in ("0", "1", "2"))
    assert set(np.unique(labels)) == {0, 1, 2}
    assert "The ensemble itself has no Dice here" in finished.process.stdout


def fold_validation(fold: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((fold / "final_model" / "validation.json").read_text())
    return document
