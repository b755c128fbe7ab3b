"""Cross-validation: every fold deploys its own model, and their ensemble is registered on the parent run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest


@pytest.fixture
def parent_run(ball_run, tmp_path) -> Path:
    """A parent run with three folds, trained alike but validated on other subjects."""
    parent = tmp_path / "parent"
    parent.mkdir()
    for fold in range(3):
        shutil.copytree(ball_run, parent / str(fold))
    for fold, epochs in (("1", (2, 3)), ("2", (1, 2))):
        for path in (parent / fold / "checkpoints").iterdir():
            if int(path.name[0]) not in epochs:
                path.unlink()
    shutil.copy(ball_run / "model.yaml", parent)
    return parent


def test_each_fold_and_the_ensemble_get_a_version(innereye, parent_run):
    outcome = innereye("deploy", parent_run, "--ensemble", "--json")

    document = json.loads(outcome.stdout)
    assert document["id"] == "Ball:4"
    assert [child["id"] for child in document["children"]] == ["Ball:1", "Ball:2", "Ball:3"]
    tags = [json.loads((parent_run / fold / "run.json").read_text())["tags"]["model_id"] for fold in "012"]
    assert tags == ["Ball:1", "Ball:2", "Ball:3"]
    assert json.loads((parent_run / "run.json").read_text())["tags"]["model_id"] == "Ball:4"
    models = {model["id"]: model["tags"] for model in json.loads(innereye("models", "list", "--json").stdout)}
    assert models["Ball:4"]["is_ensemble"] == "True"
    assert models["Ball:2"]["cross_validation_split_index"] == "1"
    assert models["Ball:2"]["parent_run_id"] == document["run"]


def test_ensemble_package_has_one_checkpoint_per_fold(innereye, parent_run):
    assert innereye("package", parent_run, "--ensemble").exit_code == 0

    package = parent_run / "final_ensemble_model"
    config = json.loads((package / "model_inference_config.json").read_text())
    assert config["checkpoint_paths"] == [f"checkpoints/{fold}/2_checkpoint.pth.tar" for fold in range(3)]
    assert not (parent_run / "0" / "final_model").exists()
    validation = json.loads((package / "validation.json").read_text())
    assert {fold: len(found["candidates"]) for fold, found in validation["folds"].items()} == {"0": 3, "1": 2, "2": 2}


def test_ensemble_posteriors_are_the_mean_of_its_members(innereye, parent_run, ball_image):
    # Three different members: the folds deploy different epochs.
    arguments = ("--policy", "last", "--ensemble")
    assert innereye("deploy", parent_run, *arguments).exit_code == 0

    def posteriors(model: str) -> np.ndarray:
        path = Path(f"{model.replace(':', '_')}.nii.gz")
        outcome = innereye("score", model, ball_image, "--posteriors", path, "--overwrite")
        assert outcome.exit_code == 0, outcome.stderr
        return nibabel.load(path).get_fdata()

    members = [posteriors(f"Ball:{version}") for version in (1, 2, 3)]
    assert np.abs(members[0] - members[2]).max() > 0.1
    np.testing.assert_allclose(posteriors("Ball:4"), np.mean(members, axis=0), atol=1e-6)


def test_missing_fold_is_refused_unless_allowed(innereye, parent_run):
    shutil.rmtree(parent_run / "1")

    innereye("deploy", parent_run, "--ensemble").refused(3, "fold 1", "--allow-missing-folds")
    assert json.loads(innereye("models", "list", "--json").stdout) == []
    assert not (parent_run / "0" / "final_model").exists()

    outcome = innereye("deploy", parent_run, "--ensemble", "--allow-missing-folds")
    assert outcome.stdout.splitlines()[-1] == "Ball:3"


def test_broken_member_is_refused_and_nothing_is_registered(innereye, parent_run):
    path = parent_run / "2" / "checkpoints" / "2_checkpoint.pth.tar"
    path.write_bytes(path.read_bytes()[:500])

    innereye("deploy", parent_run, "--ensemble").refused(3, path.name)

    assert json.loads(innereye("models", "list", "--json").stdout) == []
