"""From a training run to a segmentation, through the command line, with every room at work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch


def test_deploy_chooses_the_best_epoch_and_tags_the_run(innereye, ball_run):
    outcome = innereye("deploy", ball_run, "--json", "--tag", "site=Basel")

    document = json.loads(outcome.stdout)
    assert (document["id"], document["name"], document["version"]) == ("Ball:1", "Ball", 1)
    assert document["selection"]["selected"]["epoch"] == 2
    assert json.loads((ball_run / "run.json").read_text())["tags"]["model_id"] == "Ball:1"
    validation = json.loads((ball_run / "final_model" / "validation.json").read_text())
    scores = {candidate["epoch"]: candidate["score"] for candidate in validation["candidates"]}
    assert validation["evaluated"] is True
    assert max(scores, key=scores.get) == validation["selected"]["epoch"] == 2
    assert [subject["subject"] for subject in validation["candidates"][0]["subjects"]] == ["2", "3"]
    (model,) = json.loads(innereye("models", "list", "--json").stdout)
    assert model["tags"] == {"site": "Basel", "is_ensemble": "False"}
    assert model["description"].startswith("Epoch 2 has best validation set metrics (out of 3 epochs available).")


def test_packaged_checkpoint_carries_the_weights_alone(ball_run, ball_package):
    (path,) = (ball_package / "checkpoints").iterdir()
    packaged = torch.load(path, weights_only=True)
    original = torch.load(ball_run / "checkpoints" / path.name, weights_only=True)

    assert sorted(packaged) == ["epoch", "state_dict"]
    assert list(packaged["state_dict"]) == list(original["state_dict"])
    assert all(torch.equal(packaged["state_dict"][key], original["state_dict"][key]) for key in original["state_dict"])
    (member,) = json.loads((ball_package / "manifest.json").read_text())["members"]
    assert member["checkpoint"]["removed"] == ["opt_dict"]


def test_score_by_id_and_by_folder_give_equal_bytes_on_the_grid_of_the_image(innereye, ball_run, ball_image):
    innereye("deploy", ball_run)

    by_id = innereye("score", "Ball:latest", ball_image, "--json")
    by_folder = innereye("score", ball_run / "final_model", ball_image, "--output", "again.nii.gz")

    assert by_id.exit_code == by_folder.exit_code == 0
    assert Path("segmentation.nii.gz").read_bytes() == Path("again.nii.gz").read_bytes()
    segmentation, image = nibabel.load("segmentation.nii.gz"), nibabel.load(ball_image)
    assert segmentation.shape == image.shape
    assert np.array_equal(segmentation.affine, image.affine)
    assert segmentation.get_data_dtype() == np.uint8
    found = np.asarray(segmentation.dataobj) == 1
    truth = np.asarray(nibabel.load(ball_image.with_name("ball_7.nii.gz")).dataobj) == 1
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.8
    ball = json.loads(by_id.stdout)["structures"]["ball"]
    assert ball == {"label": 1, "voxels": int(found.sum()), "volume_ml": pytest.approx(found.sum() * 0.008)}


def test_posteriors_are_written_with_background_first(innereye, ball_package, ball_image):
    innereye("score", ball_package, ball_image, "--posteriors", "posteriors.nii.gz")

    posteriors = nibabel.load("posteriors.nii.gz")
    assert posteriors.shape == (*nibabel.load(ball_image).shape, 2)
    values = posteriors.get_fdata()
    assert np.allclose(values.sum(axis=-1), 1, atol=1e-5)
    labels = np.asarray(nibabel.load("segmentation.nii.gz").dataobj)
    assert np.array_equal(values.argmax(axis=-1), labels)


def score_py(package: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the package's score.py where third-party packages can be imported and no innereye distribution can."""
    # -S keeps site-packages' .pth files from being read, through which editable installs are found.
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_paths()["purelib"]}
    bare = [sys.executable, "-S"]
    probe = subprocess.run([*bare, "-c", "import innereye_core"], env=environment, capture_output=True, check=False)
    if probe.returncode == 0:
        pytest.skip("innereye-core is installed as a copy, so that it cannot be hidden from a subprocess")
    command = [*bare, package / "score.py", *arguments]
    return subprocess.run(
        list(map(str, command)), env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )


def test_score_py_needs_nothing_but_the_folder(innereye, ball_package, ball_image, tmp_path):
    innereye("score", ball_package, ball_image, "--output", tmp_path / "expected.nii.gz")
    elsewhere = shutil.move(ball_package, tmp_path / "moved")
    before = set(elsewhere.rglob("*"))

    options = ("--data_folder", ball_image.parent, "--image_files", ball_image.name)
    process = score_py(elsewhere, *options, cwd=tmp_path)

    assert process.returncode == 0, process.stderr
    assert (elsewhere / "segmentation.nii.gz").read_bytes() == (tmp_path / "expected.nii.gz").read_bytes()
    assert set(elsewhere.rglob("*")) - before == {elsewhere / "segmentation.nii.gz"}


def test_score_py_refuses_a_changed_package(ball_package, ball_image, tmp_path):
    code = ball_package / "InnerEye" / "ML" / "innereye_imaging" / "stitching.py"
    code.write_text(code.read_text() + "\n")

    process = score_py(ball_package, ball_image, cwd=tmp_path)

    assert process.returncode == 4
    assert "stitching.py" in process.stderr


def test_score_py_inside_a_registry_writes_to_the_current_folder(innereye, ball_package, ball_image, tmp_path):
    innereye("register", ball_package)
    registered = Path(os.environ["INNEREYE_REGISTRY_DIR"]) / "models" / "Ball" / "1" / "files" / "final_model"

    process = score_py(registered, ball_image, cwd=tmp_path)

    assert process.returncode == 0, process.stderr
    assert (tmp_path / "segmentation.nii.gz").is_file()
    assert not (registered / "segmentation.nii.gz").exists()
    assert innereye("models", "verify", "Ball:1").exit_code == 0


def test_network_from_the_extra_code_directory_travels_in_the_package(innereye, ball_run, ball_image, tmp_path):
    code = ball_run / "BallCode"
    code.mkdir()
    (code / "nets.py").write_text(
        "from innereye_segmentation.networks import UNet3D\n\n\n"
        "def build(levels):\n"
        "    return UNet3D(input_channels=1, feature_channels=2, classes=2, downsampling_paths=levels)\n"
    )
    config = (ball_run / "model.yaml").read_text()
    config = config.replace("innereye_segmentation.networks:UNet3D", "BallCode.nets:build")
    config = config.replace(
        "{input_channels: 1, feature_channels: 2, classes: 2, downsampling_paths: 1}", "{levels: 1}"
    )
    (ball_run / "model.yaml").write_text(config + "extra_code_directory: BallCode\n")

    assert innereye("deploy", ball_run).exit_code == 0

    package = ball_run / "final_model"
    assert (package / "BallCode" / "nets.py").is_file()
    process = score_py(package, ball_image, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert (package / "segmentation.nii.gz").is_file()
    assert not list(package.rglob("__pycache__"))


def test_lightning_run_must_name_its_stitching(innereye, ball_run):
    for epoch in (1, 2, 3):
        old = ball_run / "checkpoints" / f"{epoch}_checkpoint.pth.tar"
        state = torch.load(old, weights_only=True)
        weights = {f"model.{key}": value for key, value in state["state_dict"].items()}
        lightning = {
            "epoch": epoch,
            "state_dict": weights,
            "pytorch-lightning_version": "1.6.5",
            "optimizer_states": [],
        }
        torch.save(lightning, old.with_name(f"epoch={epoch}.ckpt"))
        old.unlink()

    innereye("deploy", ball_run).refused(3, "stitching")

    with (ball_run / "model.yaml").open("a") as config:
        config.write("postprocessing: {largest_component: [{structure: ball}]}\n")
    text = (
        (ball_run / "model.yaml").read_text().replace("stride_zyx: [4, 6, 6]", "stride_zyx: [4, 6, 6], stitching: crop")
    )
    (ball_run / "model.yaml").write_text(text)
    assert innereye("deploy", ball_run).exit_code == 0
    packaged = json.loads((ball_run / "final_model" / "model_inference_config.json").read_text())
    assert packaged["inference"]["stitching"] == "crop"
    assert packaged["checkpoint_paths"] == ["checkpoints/epoch=2.ckpt"]
