"""Every runtime gives the labels of eager float32 PyTorch, on real images, from file to file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from small_packages import PLUGINS, exported, host, lively

from innereye_core import package, score
from innereye_core.host import Host
from innereye_core.plugins import PluginModule
from innereye_core.progress import Silent

SHARED = Path(__file__).parents[2] / "shared"

CLEAR = 2e-5
"""Difference of the two largest posteriors that rounding, which changes each by less than 1e-5, cannot turn round."""


@pytest.fixture(scope="module")
def everything() -> Host:
    """All runtimes, and eager PyTorch as one more."""
    modules = [PluginModule(name, f"innereye_{name}.plugin") for name in PLUGINS]
    return Host([*modules, PluginModule("eager", "eager_runtime")])


@pytest.fixture(autouse=True, scope="module")
def single_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def assert_runtimes_agree(model: Path, image: Path, everything: Host, folder: Path) -> None:
    """Score with every runtime, and compare with eager PyTorch wherever that is sure."""
    made = exported(model, folder / "exported").package.folder
    labels, posteriors = folder / "eager.nii.gz", folder / "posteriors.nii.gz"
    score(made, [image], output=labels, posteriors=posteriors, runtime="eager", host=everything)
    second, first = np.sort(voxels(posteriors), axis=-1)[..., -2:].transpose(3, 0, 1, 2)
    clear = first - second >= CLEAR
    expected = voxels(labels)
    assert np.count_nonzero(~clear) <= 1e-2 * clear.size
    assert len(np.unique(expected)) > 1
    for runtime in ("torch", "onnx", "openvino"):
        found = folder / f"{runtime}.nii.gz"
        result = score(made, [image], output=found, runtime=runtime, host=everything)
        assert result.runtime == runtime
        assert np.count_nonzero((voxels(found) != expected)[clear]) == 0, runtime


@pytest.mark.slow
def test_on_the_mri_of_the_demo(everything, tmp_path) -> None:
    from innereye_demo.brain import load_brain
    from innereye_demo.life import train_run
    from innereye_demo.output_folder import OutputFolder
    from innereye_demo.regions import splits
    from innereye_demo.training import Schedule

    brain, output = load_brain(), OutputFolder(tmp_path / "brain")
    output.prepare()
    train_run(output, brain, splits(brain, 3)[-1:], Schedule(epochs=1, steps_per_epoch=20), everything, Silent())
    image = tmp_path / "t1.nii.gz"
    nibabel.save(nibabel.Nifti1Image(brain.t1.voxels.T, brain.t1.affine), image)
    made = package(output.run, host=host("imaging", "segmentation"))
    assert_runtimes_agree(made.folder, image, everything, tmp_path)


@pytest.fixture
def write_ct_run(tmp_path):
    """Writes a run of one checkpoint, for CTs."""

    def write(factory: str, arguments: dict[str, Any], structures: Sequence[str], crop: Sequence[int]) -> Path:
        config = {
            "schema_version": 1,
            "model_name": "CT",
            "structures": [{"name": name} for name in structures],
            "image_channels": ["ct"],
            "network": {"factory": f"innereye_segmentation.networks:{factory}", "arguments": arguments},
            "input": {"modality": "ct"},
            "normalization": {"method": "ct_window", "level": 40, "window": 400},
            "inference": {"crop_size_zyx": list(crop), "stitching": "average", "batch_size": 2},
        }
        (tmp_path / "run" / "checkpoints").mkdir(parents=True)
        (tmp_path / "run" / "model.yaml").write_text(json.dumps(config))
        return tmp_path / "run"

    return write


@pytest.fixture
def ct() -> Path:
    """A real CT, 122 × 101 × 30 voxels of 3 mm."""
    path = SHARED / "data" / "totalsegmentator" / "example_ct_sm.nii.gz"
    if not path.is_file():
        pytest.skip("needs the reference data beside the repository")
    return path


@pytest.mark.parametrize(
    ("name", "factory", "crop"),
    [("unet3d_a", "UNet3D", (16, 48, 64)), pytest.param("basic2", "Basic", (44, 60, 60), marks=pytest.mark.slow)],
)
def test_with_networks_of_innereyes_own(write_ct_run, ct, everything, tmp_path, name, factory, crop) -> None:
    golden = SHARED / "golden" / "unet3d"
    settings = json.loads((golden / "checkpoints.json").read_text())[name]["config"]
    structures, features = settings["ground_truth_ids"], settings["feature_channels"]
    arguments = {"input_channels": 1, "classes": len(structures) + 1, "feature_channels": features}
    if factory == "UNet3D":
        arguments |= {"feature_channels": features[0], "downsampling_paths": settings["num_downsampling_paths"]}
    run = write_ct_run(factory, arguments, structures, crop)
    shutil.copyfile(golden / f"{name}.ckpt", run / "checkpoints" / f"{name}.ckpt")
    made = package(run, host=host("imaging", "segmentation"))
    assert_runtimes_agree(made.folder, ct, everything, tmp_path)


def test_with_a_network_that_looks_at_slices(write_ct_run, ct, everything, tmp_path) -> None:
    from innereye_segmentation.networks import UNet2D

    arguments = {"input_channels": 1, "feature_channels": 4, "classes": 3, "downsampling_paths": 2}
    run = write_ct_run("UNet2D", arguments, ["one", "two"], (1, 64, 64))
    state = lively(UNet2D(**arguments)).state_dict()
    torch.save({"epoch": 1, "state_dict": state}, run / "checkpoints" / "1_checkpoint.pth.tar")
    made = package(run, host=host("imaging", "segmentation"))
    assert_runtimes_agree(made.folder, ct, everything, tmp_path)
