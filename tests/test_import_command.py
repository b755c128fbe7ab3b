"""A package with InnerEye's own weights is imported, and scores as InnerEye did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

GOLDEN = Path(__file__).parents[2] / "shared" / "golden"

YAML = """\
schema_version: 1
model_name: Golden
structures: [{{name: liver}}, {{name: spleen}}, {{name: kidney}}]
image_channels: [ct]
network:
  factory: innereye_segmentation.networks:UNet3D
  arguments: {{input_channels: 1, feature_channels: 4, classes: 4, downsampling_paths: 2}}
normalization: {{method: ct_window, level: 40, window: 400}}
inference: {{crop_size_zyx: {crop}, stride_zyx: {stride}}}
"""

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs the reference data beside the repository")


def write_package(folder: Path, checkpoints: dict[str, str]) -> Path:
    """A folder as InnerEye wrote it; checkpoints are path in the package → file among the references."""
    for path, source in checkpoints.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(GOLDEN / "unet3d" / source, folder / path)
    document = {
        "model_name": "Golden",
        "structure_names": ["liver", "spleen", "kidney"],
        "colours": [[255, 0, 0], [0, 255, 0], [0, 0, 255]],
        "fill_holes": [True, True, False],
        "model_configs_namespace": "InnerEye.ML.configs.Golden",
        "checkpoint_paths": list(checkpoints),
    }
    (folder / "model_inference_config.json").write_text(json.dumps(document))
    (folder / "environment.yml").write_text("name: InnerEye\ndependencies: [python=3.7.3]\n")
    (folder / "score.py").write_text("raise SystemExit('the code of the package was run')\n")
    return folder


@pytest.mark.parametrize(
    ("folder", "checkpoints"),
    [
        ("pipeline_cd4458e1", {"outputs/checkpoints/3_checkpoint.pth.tar": "3_checkpoint.pth.tar"}),
        ("pipeline", {"checkpoints/last.ckpt": "unet3d_a.ckpt"}),
    ],
)
def test_an_imported_model_finds_what_the_original_found(innereye, tmp_path, caplog, folder, checkpoints):
    """Both generations of InnerEye, each with the stitching of its time, which model.yaml does not name."""
    case = json.loads((GOLDEN / folder / "cases.json").read_text())["a_noise_stride_half"]
    (tmp_path / "model.yaml").write_text(YAML.format(crop=case["test_crop_size"], stride=case["inference_stride_size"]))
    original = write_package(tmp_path / "Golden_7", checkpoints)
    made = innereye("import", "innereye", original, "--config", tmp_path / "model.yaml", "--output", tmp_path)
    assert made.exit_code == 0, made
    assert "environment.yml is left out" in caplog.text
    package = tmp_path / "final_model"
    scored = innereye("score", package, GOLDEN / "pipeline" / case["image"], "--output", tmp_path / "found.nii.gz")
    assert scored.exit_code == 0, scored
    expected = np.load(GOLDEN / folder / "a_noise_stride_half.npz")
    second, first = np.sort(expected["posteriors"], axis=0)[-2:]
    clear = first - second > 1e-4
    labels = np.asarray(nibabel.load(tmp_path / "found.nii.gz").dataobj).T
    assert np.array_equal(labels[clear], expected["segmentation"][clear])


@pytest.mark.slow
def test_an_imported_ensemble_is_scored_registered_and_verified(innereye, tmp_path):
    checkpoints = {"checkpoints/OTHER_RUNS/1/last.ckpt": "unet3d_a_ens1.ckpt", "checkpoints/last.ckpt": "unet3d_a.ckpt"}
    original = write_package(tmp_path / "final_ensemble_model", checkpoints)
    (tmp_path / "model.yaml").write_text(YAML.format(crop=[12, 16, 20], stride=[6, 8, 10]))
    arguments = ("--config", tmp_path / "model.yaml", "--output", tmp_path / "imported")
    made = innereye("import", "innereye", original, *arguments)
    assert made.stdout.splitlines()[-1] == str(tmp_path / "imported" / "final_ensemble_model")
    model_id = innereye("register", tmp_path / "imported" / "final_ensemble_model").stdout.strip()
    assert model_id == "Golden:1"
    assert innereye("models", "verify", model_id).exit_code == 0
    scored = innereye("score", model_id, GOLDEN / "pipeline" / "phantom.nii.gz", "--json")
    assert json.loads(scored.stdout)["structures"]["liver"]["voxels"] > 0


def test_weights_of_another_network_are_refused(innereye, tmp_path):
    original = write_package(tmp_path / "Golden_7", {"checkpoints/last.ckpt": "basic2.ckpt"})
    (tmp_path / "model.yaml").write_text(YAML.format(crop=[12, 16, 20], stride="null"))
    arguments = ("--config", tmp_path / "model.yaml", "--output", tmp_path)
    innereye("import", "innereye", original, *arguments).refused(3, "last.ckpt: does not fit the network")
    assert not (tmp_path / "final_model").exists()
