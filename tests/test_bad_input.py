"""Bad input, each kind on its own: the exit code of the contract, one line on stderr, no traceback, nothing lost."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from innereye_core.config_files import MODEL_FILE


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def assert_no_package(run: Path) -> None:
    assert not (run / "final_model").exists()
    assert not [path for path in run.iterdir() if "staging" in path.name]


# --- images -----------------------------------------------------------------------------------------------------------


def rewritten(path: Path, change) -> Path:
    image = nibabel.load(path)
    voxels, affine = change(np.asarray(image.dataobj), image.affine)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def with_nan(voxels, affine):
    voxels = voxels.astype(np.float32)
    voxels[3, 3, 3] = np.nan
    return voxels, affine


BAD_IMAGES = {
    "two-dimensional": (lambda voxels, affine: (voxels[:, :, 0], affine), "3-D"),
    "several channels in one file": (lambda voxels, affine: (np.stack([voxels] * 3, axis=-1), affine), "3-D"),
    "NaN": (with_nan, "finite"),
    "wrong spacing": (lambda voxels, affine: (voxels, affine @ np.diag([1.5, 1, 1, 1])), "spacing"),
    "constant": (lambda voxels, affine: (np.zeros_like(voxels), affine), "every voxel is 0"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_image_that_the_network_must_not_see(innereye, ball_package, ball_image, kind):
    change, word = BAD_IMAGES[kind]
    rewritten(ball_image, change)

    innereye("score", ball_package, ball_image).refused(3, word)

    assert not Path("segmentation.nii.gz").exists()


def test_missing_image(innereye, ball_package):
    innereye("score", ball_package, "ct.nii.gz").refused(3, "ct.nii.gz", "does not exist")


def test_truncated_image(innereye, ball_package, ball_image):
    ball_image.write_bytes(ball_image.read_bytes()[:1000])
    innereye("score", ball_package, ball_image).refused(3, ball_image.name)


def test_image_with_wrong_magic(innereye, ball_package, ball_image):
    ball_image.write_bytes(gzip.compress(b"this is no image at all" * 100))
    innereye("score", ball_package, ball_image).refused(3, ball_image.name)


def test_wrong_number_of_image_files(innereye, ball_package, ball_image):
    innereye("score", ball_package, ball_image, ball_image).refused(3, "2 image(s)")


def test_existing_segmentation_is_kept(innereye, ball_package, ball_image):
    Path("segmentation.nii.gz").write_text("precious")

    innereye("score", ball_package, ball_image).refused(3, "segmentation.nii.gz", "--overwrite")

    assert Path("segmentation.nii.gz").read_text() == "precious"


# --- checkpoints ------------------------------------------------------------------------------------------------------


class Recipe:
    """A class that somebody pickled into a checkpoint."""


def test_run_without_checkpoints(innereye, ball_run):
    shutil.rmtree(ball_run / "checkpoints")
    innereye("deploy", ball_run).refused(3, "checkpoint")
    assert_no_package(ball_run)


def test_missing_checkpoint_of_an_epoch(innereye, ball_run):
    innereye("deploy", ball_run, "--epochs-to-test", "1,9").refused(3, "9", "1, 2, 3")
    assert_no_package(ball_run)


def test_corrupt_checkpoint(innereye, ball_run):
    path = ball_run / "checkpoints" / "2_checkpoint.pth.tar"
    path.write_bytes(path.read_bytes()[:500])
    innereye("deploy", ball_run).refused(3, path.name)
    assert_no_package(ball_run)


def test_checkpoint_with_a_pickled_class(innereye, ball_run):
    path = ball_run / "checkpoints" / "2_checkpoint.pth.tar"
    torch.save({**torch.load(path), "recipe": Recipe()}, path)
    innereye("deploy", ball_run, "--epochs-to-test", "2").refused(3, path.name, "Recipe")
    assert_no_package(ball_run)


def test_checkpoint_keys_that_do_not_match_the_network(innereye, ball_run):
    path = ball_run / "checkpoints" / "2_checkpoint.pth.tar"
    checkpoint = torch.load(path)
    checkpoint["state_dict"]["another.weight"] = checkpoint["state_dict"].popitem()[1]
    torch.save(checkpoint, path)
    innereye("deploy", ball_run, "--epochs-to-test", "2").refused(3, path.name, "another.weight")
    assert_no_package(ball_run)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_checkpoint_with_weights_that_are_no_numbers(innereye, ball_run, value):
    path = ball_run / "checkpoints" / "2_checkpoint.pth.tar"
    checkpoint = torch.load(path)
    next(iter(checkpoint["state_dict"].values())).view(-1)[0] = value
    torch.save(checkpoint, path)
    innereye("deploy", ball_run, "--epochs-to-test", "2").refused(4, path.name)
    assert_no_package(ball_run)


def test_package_with_a_missing_checkpoint(innereye, ball_package, ball_image):
    next((ball_package / "checkpoints").iterdir()).unlink()
    innereye("score", ball_package, ball_image).refused(4, "checkpoint.pth.tar", "missing")


def test_package_with_a_changed_checkpoint(innereye, ball_package, ball_image):
    path = next((ball_package / "checkpoints").iterdir())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    innereye("score", ball_package, ball_image).refused(4, path.name)


# --- configuration ----------------------------------------------------------------------------------------------------

BAD_CONFIGS = {
    "unknown key": ("normalization:", "normalisation: {}\nnormalization:", "normalisation"),
    "duplicate key": ("image_channels: [mr]", "image_channels: [mr]\nimage_channels: [mr]", "image_channels"),
    "negative size": ("[8, 12, 12]", "[8, -12, 12]", "-12"),
    "path that leaves the folder": ("image_channels:", "extra_code_directory: ../code\nimage_channels:", "../code"),
    "factory that does not import": ("networks:UNet3D", "networks:UNet4D", "UNet4D"),
    "factory of a module that is not there": ("innereye_segmentation.networks", "no_such_module", "no_such_module"),
    "factory with other arguments": ("feature_channels", "features", "features"),
    "wrong number of classes": ("classes: 2", "classes: 3", "3"),
}


@pytest.mark.parametrize("kind", BAD_CONFIGS)
def test_model_config_that_makes_no_sense(innereye, ball_run, kind):
    old, new, word = BAD_CONFIGS[kind]
    replace_in(ball_run / MODEL_FILE, old, new)
    innereye("deploy", ball_run).refused(3, word)
    assert_no_package(ball_run)


def test_run_that_does_not_exist(innereye, tmp_path):
    innereye("deploy", tmp_path / "nothing").refused(3, "nothing")


# --- validation data --------------------------------------------------------------------------------------------------


def test_empty_validation_split(innereye, ball_run):
    replace_in(ball_run / "dataset.csv", ",val", ",test")
    innereye("deploy", ball_run).refused(3, "dataset.csv", "val")
    assert_no_package(ball_run)


def test_label_file_of_another_shape(innereye, ball_run):
    rewritten(ball_run / "ball_2.nii.gz", lambda voxels, affine: (voxels[:, :, :-1], affine))
    innereye("deploy", ball_run).refused(3, "ball_2.nii.gz")
    assert_no_package(ball_run)


# --- what is there already --------------------------------------------------------------------------------------------


def test_existing_package_is_kept(innereye, ball_run):
    (ball_run / "final_model").mkdir()
    (ball_run / "final_model" / "mine.txt").write_text("precious")

    innereye("deploy", ball_run).refused(5, "final_model", "--replace")

    assert (ball_run / "final_model" / "mine.txt").read_text() == "precious"
    assert json.loads(innereye("models", "list", "--json").stdout) == []


# --- the disk ---------------------------------------------------------------------------------------------------------


def as_other_process(*arguments: object, before=None, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "innereye_core", *map(str, arguments)],
        env={**os.environ, **variables},
        preexec_fn=before,
        capture_output=True,
        text=True,
        check=False,
    )


def refused(process: subprocess.CompletedProcess[str], exit_code: int, *words: str) -> None:
    assert process.returncode == exit_code, process
    errors = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, process.stderr
    assert "Traceback" not in process.stderr
    for word in words:
        assert word in errors[0]


def without_privileges(folder: Path) -> None:
    """Become nobody, who may look into temporary folders."""
    for parent in (folder, *folder.parents[:-2]):
        parent.chmod(parent.stat().st_mode | 0o755)
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def test_registry_without_write_permission(innereye, ball_package, tmp_path, monkeypatch):
    innereye("register", ball_package)  # imports everything, which nobody might not be allowed to read
    registry = tmp_path / "registry"
    registry.mkdir(mode=0o555)
    monkeypatch.setenv("INNEREYE_REGISTRY_DIR", str(registry))
    with (tmp_path / "outcome").open("w+b") as outcome:
        child = os.fork()
        if child == 0:
            without_privileges(tmp_path)
            pickle.dump(innereye("register", ball_package), outcome)
            outcome.flush()
            os._exit(0)
        os.waitpid(child, 0)
        outcome.seek(0)
        pickle.load(outcome).refused(7, str(registry))

    assert list(registry.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system with too little space for a package."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder], capture_output=True, check=False
    )
    if mount.returncode != 0:
        pytest.skip("mounting is not allowed here; the file size limit is tested instead")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_disk_that_is_full_while_packaging(innereye, ball_run, small_disk):
    innereye("package", ball_run, "--output", small_disk).refused(7, "space")
    assert list(small_disk.iterdir()) == []


def test_disk_that_is_full_while_registering(innereye, ball_package, small_disk, monkeypatch):
    monkeypatch.setenv("INNEREYE_REGISTRY_DIR", str(small_disk))
    innereye("register", ball_package).refused(7, "space")
    assert json.loads(innereye("models", "list", "--json").stdout) == []
    assert not [path for path in small_disk.rglob("*") if path.is_file()]


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))


def test_file_size_limit_while_packaging(ball_run):
    refused(as_other_process("package", ball_run, before=limit_file_size), 7, "final_model")
    assert_no_package(ball_run)


def test_file_size_limit_while_registering(ball_package, tmp_path):
    registry = tmp_path / "registry"
    process = as_other_process("register", ball_package, before=limit_file_size, INNEREYE_REGISTRY_DIR=str(registry))
    refused(process, 7)
    assert not [path for path in registry.rglob("*") if path.is_file()]
