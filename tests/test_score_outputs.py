"""Everything that scoring writes, with a real package, and what the package knows of its validation set."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from innereye_core import load_model, score


def voxels(path: str | Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def test_every_output_from_one_command(innereye, ball_package, ball_image):
    outcome = innereye(
        *("score", ball_package, ball_image, "--json"),
        *("--posteriors", "posteriors/", "--uncertainty", "uncertainty.nii.gz"),
        *("--statistics", "statistics.json", "--statistics", "statistics.csv"),
        *("--preview", "preview.png", "--report", "report.html"),
    )

    assert outcome.exit_code == 0, outcome.stderr
    document = json.loads(outcome.stdout)
    assert document["posteriors"] == "posteriors"
    assert document["statistics"] == ["statistics.json", "statistics.csv"]
    assert (document["uncertainty"], document["disagreement"]) == ("uncertainty.nii.gz", None)
    assert (document["preview"], document["report"]) == ("preview.png", "report.html")

    found = voxels("segmentation.nii.gz") == 1
    posterior = voxels("posteriors/ball.nii.gz")
    assert np.array_equal(posterior > 0.5, found)
    both = np.clip(np.stack([posterior, 1 - posterior]).astype(np.float64), 1e-12, 1)
    assert np.allclose(voxels("uncertainty.nii.gz"), -(both * np.log2(both)).sum(axis=0), atol=1e-4)

    ball = json.loads(Path("statistics.json").read_text())["structures"]["ball"]
    assert ball["voxels"] == document["structures"]["ball"]["voxels"] == found.sum()
    assert ball["mean_intensity"]["mr"] == pytest.approx(voxels(ball_image)[found].mean())
    with Path("statistics.csv").open(newline="") as file:
        assert [row["voxels"] for row in csv.DictReader(file)] == [str(found.sum())]

    assert Image.open("preview.png").format == "PNG"
    report = Path("report.html").read_text(encoding="utf-8")
    digest = innereye("models", "verify", ball_package, "--json")
    assert json.loads(digest.stdout)["digest"] in report


def test_score_py_in_the_package_has_the_same_options(ball_package, ball_image, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    options = ["--posteriors", "p.nii.gz", "--uncertainty", "u.nii.gz", "--statistics", "s.csv"]
    options += ["--preview", "p.png", "--report", "r.html", "--output", "s.nii.gz"]
    mask = tmp_path / f"ball_7{''.join(ball_image.suffixes)}"
    process = subprocess.run(
        [sys.executable, ball_package / "score.py", ball_image, "--mask", mask, *options],
        cwd=folder, env=os.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert process.returncode == 0, process.stderr
    assert sorted(path.name for path in folder.iterdir()) == sorted(option for option in options if "." in option)
    assert not voxels(folder / "s.nii.gz")[voxels(mask) == 0].any()
    assert not voxels(folder / "u.nii.gz")[voxels(mask) == 0].any()


def test_what_was_there_is_kept(innereye, ball_package, ball_image):
    for name in ("u.nii.gz", "s.json", "p.png", "r.html"):
        Path(name).write_text("precious")
    for option in ("--uncertainty=u.nii.gz", "--statistics=s.json", "--preview=p.png", "--report=r.html"):
        innereye("score", ball_package, ball_image, option).refused(3, "exists already", "--overwrite")
        # InnerEye's own way to score replaces the segmentation, and nothing else.
        words = ("--model_folder", ball_package, "--data_folder", ball_image.parent, "--image_files", ball_image.name)
        innereye("score", *words, option).refused(3, "exists already", "--overwrite")
    assert {Path(name).read_text() for name in ("u.nii.gz", "s.json", "p.png", "r.html")} == {"precious"}
    assert not Path("segmentation.nii.gz").exists()


def test_the_package_says_what_its_validation_set_was_like(innereye, ball_run, ball_package):
    ranges = json.loads((ball_package / "validation_ranges.json").read_text())
    for subject in ranges["subjects"]:
        mask = nibabel.load(ball_run / f"ball_{subject['subject']}.nii.gz")
        volume_ml = np.asarray(mask.dataobj).sum() * 0.008
        assert subject["structures"]["ball"] == {"volume_ml": pytest.approx(volume_ml), "components": 1}
    assert [subject["subject"] for subject in ranges["subjects"]] == ["2", "3"]
    files = json.loads((ball_package / "manifest.json").read_text())["files"]
    assert [file["role"] for file in files if file["path"] == "validation_ranges.json"] == ["validation"]
    assert innereye("models", "verify", ball_package).exit_code == 0


def test_a_ball_like_those_of_the_validation_set_is_not_named(innereye, ball_package, ball_image):
    document = json.loads(innereye("score", ball_package, ball_image, "--json").stdout)
    assert document["review"] == []
    assert [check["outcome"] for check in document["checks"] if check["name"] == "review"] == ["passed"]


def test_balls_unlike_those_of_the_validation_set_are_to_be_reviewed(innereye, ball_package, ball_image):
    image = nibabel.load(ball_image)
    several = np.tile(np.asarray(image.dataobj), (2, 2, 1))
    nibabel.save(nibabel.Nifti1Image(several, image.affine), ball_image)

    outcome = innereye("score", ball_package, ball_image, "--report", "report.html")

    reviewed = [line for line in outcome.stderr.splitlines() if line.startswith("review: ball: ")]
    assert any("4 components, but 2 subjects in the validation set had 1" in line for line in reviewed)
    assert all(line.removeprefix("review: ") in Path("report.html").read_text() for line in reviewed)


def test_an_image_in_which_nothing_is_found_is_to_be_reviewed(innereye, ball_package, ball_image):
    image = nibabel.load(ball_image)
    noise = np.random.default_rng(0).normal(100, 1, image.shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(noise, image.affine), ball_image)
    corner = np.zeros(image.shape, np.uint8)
    corner[0, 0, 0] = 1
    nibabel.save(nibabel.Nifti1Image(corner, image.affine), "mask.nii.gz")

    outcome = innereye(
        *("score", ball_package, ball_image, "--mask", "mask.nii.gz", "--json"),
        *("--report", "report.html", "--statistics", "s.csv", "--preview", "p.png"),
    )

    assert outcome.exit_code == 0, outcome.stderr
    document = json.loads(outcome.stdout)
    assert document["structures"]["ball"]["voxels"] <= 1
    assert len(document["review"]) == 1


def test_a_model_without_validation_set_says_that_nothing_was_compared(innereye, ball_run, ball_image):
    for path in ball_run.glob("*.nii.gz"):
        path.unlink()
    (ball_run / "dataset.csv").unlink()
    outcome = innereye("package", ball_run, "--epochs-to-test", "2")
    assert outcome.exit_code == 0, outcome.stderr
    assert not (ball_run / "final_model" / "validation_ranges.json").exists()

    outcome = innereye("score", ball_run / "final_model", ball_image)

    assert "unchecked: review: the model does not say what its validation set was like" in outcome.stderr


@pytest.mark.slow
def test_an_ensemble_says_how_far_its_members_disagree(innereye, ball_run, ball_image, tmp_path):
    parent = tmp_path / "parent"
    for fold in "01":
        shutil.copytree(ball_run, parent / fold)
    shutil.copy(ball_run / "model.yaml", parent)
    (parent / "1" / "checkpoints" / "2_checkpoint.pth.tar").unlink()
    (parent / "1" / "checkpoints" / "3_checkpoint.pth.tar").unlink()
    assert innereye("package", parent, "--ensemble").exit_code == 0
    package = parent / "final_ensemble_model"
    subjects = json.loads((package / "validation_ranges.json").read_text())["subjects"]
    assert [(one["fold"], one["subject"]) for one in subjects] == [("0", "2"), ("0", "3"), ("1", "2"), ("1", "3")]

    outcome = innereye("score", package, ball_image, "--uncertainty", "u.nii.gz", "--json")

    assert json.loads(outcome.stdout)["disagreement"] == "u_disagreement.nii.gz"
    entropy, disagreement = voxels("u.nii.gz"), voxels("u_disagreement.nii.gz")
    assert entropy.shape == disagreement.shape == nibabel.load(ball_image).shape
    assert disagreement.min() >= 0
    assert 0.05 < disagreement.max() <= entropy.max() <= 1


def test_the_network_stays_loaded_between_patients(ball_package, ball_image, tmp_path):
    model = load_model(ball_package)
    score(model, [ball_image], output=tmp_path / "0.nii.gz")
    shutil.rmtree(ball_package / "checkpoints")

    score(model, [ball_image], output=tmp_path / "1.nii.gz")

    assert (tmp_path / "0.nii.gz").read_bytes() == (tmp_path / "1.nii.gz").read_bytes()
