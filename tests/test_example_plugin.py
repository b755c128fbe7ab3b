"""The example of "Writing a plugin", installed as a user would: a deployment in which every step is ACME's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "acme-innereye"
MODULES = sorted((EXAMPLE / "src" / "acme_innereye").glob("*.py"))

MODEL_YAML = """\
schema_version: 1
model_name: Blocks
structures: [{name: grey}, {name: white}]
image_channels: [mr]
network:
  factory: acme_innereye.networks:TwoConvolutions
  arguments: {channels: 1, classes: 3, width: 3}
inference: {crop_size_zyx: [4, 8, 12]}
"""

ENVIRONMENT_YML = """\
name: acme
channels: [conda-forge]
dependencies: [python=3.11, pytorch]
"""

# Voxels of the two structures, and of background that looks almost like them, along x. Each of the latter is three
# times as large: a network that takes both for the structure has a Dice of 2 / (1 + 4) = 0.4.
GREY, LIKE_GREY, WHITE, LIKE_WHITE = slice(1, 2), slice(2, 5), slice(6, 7), slice(7, 10)


def write_run(folder: Path) -> None:
    """A run of two epochs: 1 finds grey exactly and white never, 2 finds both with a Dice of 0.4."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "model.yaml").write_text(MODEL_YAML)
    (folder / "environment.yml").write_text(ENVIRONMENT_YML)
    image, grey, white = (np.zeros((12, 8, 4), dtype) for dtype in (np.float32, np.uint8, np.uint8))
    for where, brightness in ((GREY, 1.0), (LIKE_GREY, 1.2), (WHITE, 2.0), (LIKE_WHITE, 1.8)):
        image[where] = brightness
    grey[GREY], white[WHITE] = 1, 1
    for name, voxels in (("mr", image), ("grey", grey), ("white", white)):
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / f"{name}.nii.gz")
    rows = ["subject,filePath,channel,split", *(f"1,{name}.nii.gz,{name},val" for name in ("mr", "grey", "white"))]
    (folder / "dataset.csv").write_text("\n".join(rows) + "\n")
    # Hidden features are relu(brightness), relu(brightness - 1.1), relu(brightness - 1.5); classes weigh them.
    first = weights([[0, 10, 0], [1, 0, 0], [0, 0, 0]], biases=[0.5, 0, -9])
    second = weights([[0, 0, 0], [1, 0, 0], [1, 0, 4]], biases=[0.5, 0, -0.5])
    torch.save(first, folder / "checkpoints" / "1_checkpoint.pt")
    torch.save(second, folder / "checkpoints" / "2_checkpoint.pt")


def weights(classes: list[list[float]], biases: list[float]) -> dict[str, torch.Tensor]:
    """The state dict of a TwoConvolutions that looks at single voxels."""
    first = torch.zeros(3, 1, 3, 3, 3)
    first[:, :, 1, 1, 1] = 1
    return {
        "first.weight": first,
        "first.bias": torch.tensor([0.0, -1.1, -1.5]),
        "second.weight": torch.tensor(classes, dtype=torch.float32)[:, :, None, None, None],
        "second.bias": torch.tensor(biases),
    }


class Acme:
    """A computer at ACME: the plugin is installed there, and a run was deployed with it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.run_folder = home / "run"
        self.package = self.run_folder / "final_model"
        self.shelf = home / "shelf"
        self.site = home / "site"

    def install(self) -> None:
        """Install the example from a copy, so that the build leaves the repository alone."""
        source = shutil.copytree(EXAMPLE, self.home / "source")
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
        options = ("--no-deps", "--no-build-isolation", "--no-index", "--target", str(self.site))
        subprocess.run([*pip, *options, str(source)], check=True)

    def innereye(self, *arguments: object) -> str:
        """Run ``innereye`` with the plugin, and return stdout."""
        return self.python("-m", "innereye_core", *arguments, PYTHONPATH=str(self.site))

    def python(self, *arguments: object, **variables: str) -> str:
        """Run Python in an empty folder, and return stdout."""
        ours = {
            "ACME_SHELF": str(self.shelf),
            "INNEREYE_LOAD_PLUGINS": "acme,imaging,segmentation",
            "INNEREYE_REGISTRY_DIR": str(self.home / "unused"),
            "OMP_NUM_THREADS": "1",
        }
        others = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "INNEREYE_REGISTRY")}
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(
            command, cwd=self.home, env={**others, **ours, **variables}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def acme(tmp_path_factory) -> Acme:
    """The plugin installed, nothing deployed."""
    computer = Acme(tmp_path_factory.mktemp("acme"))
    computer.install()
    write_run(computer.run_folder)
    return computer


@pytest.fixture(scope="module")
def deployed(acme) -> dict:
    """What ``deploy --json`` says, with ACME's policy, merger, packager and registry."""
    steps = ("--policy", "worst_structure", "--merge-strategy", "last-file", "--packager", "with-notice")
    return json.loads(acme.innereye("deploy", acme.run_folder, *steps, "--registry", "shelf", "--json"))


@pytest.fixture(scope="module")
def manifest(acme, deployed) -> dict:
    """The package's manifest.json."""
    return json.loads((acme.package / "manifest.json").read_text())


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_each_module_of_the_example_has_less_than_40_lines(module):
    assert len([line for line in module.read_text().splitlines() if line.strip()]) < 40


def test_the_plugin_is_found_once_it_is_installed(acme):
    plugins = {plugin["name"]: plugin for plugin in json.loads(acme.innereye("plugins", "--json"))}
    assert plugins["acme"] == {
        "name": "acme",
        "distribution": "acme-innereye",
        "version": "1.0",
        "hooks": [
            "innereye_environment_mergers",
            "innereye_packagers",
            "innereye_policies",
            "innereye_registries",
        ],
        "blocked": False,
    }


def test_the_policy_chooses_what_the_default_would_not(acme, deployed):
    by_default = json.loads(acme.innereye("select", acme.run_folder, "--json"))
    assert by_default["selected"]["epoch"] == 1
    assert deployed["selection"]["selected"]["epoch"] == 2
    first, second = deployed["selection"]["candidates"]
    assert first["structures"] == pytest.approx({"grey": 1.0, "white": 0.0})
    assert second["structures"] == pytest.approx({"grey": 0.4, "white": 0.4})


def test_the_packager_adds_a_notice_that_the_manifest_lists(acme, manifest):
    assert (acme.package / "NOTICE.txt").read_text() == "Blocks finds grey, white. ACME, for research only.\n"
    assert "NOTICE.txt" in [file["path"] for file in manifest["files"]]
    assert "InnerEye/Common/innereye_core/__init__.py" in [file["path"] for file in manifest["files"]]


def test_the_merger_takes_the_last_file_and_says_what_it_left_out(acme, manifest):
    assert (acme.package / "environment.yml").read_text() == ENVIRONMENT_YML
    assert "requirements of innereye-core: not merged" in manifest["environment_warnings"]


def test_the_network_travels_with_the_package(acme, manifest):
    code = "InnerEye/Plugins/acme_innereye/networks.py"
    assert (acme.package / code).read_bytes() == (EXAMPLE / "src" / "acme_innereye" / "networks.py").read_bytes()
    assert {"path": code, "role": "toolbox"}.items() <= next(f for f in manifest["files"] if f["path"] == code).items()


def test_the_registry_numbers_lists_tags_and_deletes(acme, deployed):
    assert deployed["id"] == "Blocks:1"
    assert deployed["registry"] == "shelf"
    assert json.loads((acme.run_folder / "run.json").read_text())["tags"] == {"model_id": "Blocks:1"}
    again = acme.innereye("register", acme.package, "--registry", "shelf").split()[-1]
    assert again == "Blocks:2"
    acme.innereye("models", "tag", "Blocks:1", "status=approved", "--registry", "shelf")
    acme.innereye("models", "delete", "Blocks:2", "--registry", "shelf")
    (left,) = json.loads(acme.innereye("models", "list", "--registry", "shelf", "--json"))
    assert left["id"] == "Blocks:1"
    assert left["tags"]["status"] == "approved"
    assert acme.innereye("register", acme.package, "--registry", "shelf").split()[-1] == "Blocks:3"


def test_scores_by_id_from_the_shelf_and_without_the_plugin_from_the_folder(acme, deployed):
    image = acme.run_folder / "mr.nii.gz"
    by_id, alone = acme.home / "by_id.nii.gz", acme.home / "alone.nii.gz"
    acme.innereye("score", "Blocks:1", image, "--registry", "shelf", "--output", by_id)
    acme.python(acme.package / "score.py", image, "--output", alone)
    labels = np.asarray(nibabel.load(by_id).dataobj)
    assert np.unique(labels[GREY]) == np.unique(labels[LIKE_GREY]) == 1
    assert np.unique(labels[WHITE]) == np.unique(labels[LIKE_WHITE]) == 2
    assert np.count_nonzero(labels) == 8 * labels[0].size
    assert by_id.read_bytes() == alone.read_bytes()
