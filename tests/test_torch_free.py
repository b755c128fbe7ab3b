"""An exported package scores where there is no PyTorch, and gives the labels that PyTorch gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from innereye_core.cli.group import innereye as innereye_command
from innereye_core.cli.main import run

ROOT = Path(__file__).parents[1]

WITHOUT_TORCH = """\
import runpy
import sys

sys.modules["torch"] = None  # every import of it fails
script, sys.argv = sys.argv[1], sys.argv[1:]
runpy.run_path(script, run_name="__main__") if script.endswith(".py") else runpy.run_module(script, run_name="__main__")
assert sys.modules["torch"] is None
"""


@pytest.fixture(scope="module")
def exported_ball(_pristine_package, tmp_path_factory) -> Path:
    """A package whose network finds a ball, exported on the command line; not to be changed."""
    output = tmp_path_factory.mktemp("exported")
    arguments = ["export", "onnx", str(_pristine_package), "--output", str(output)]
    assert run(innereye_command, arguments, "innereye") == 0
    return output / "final_model"


@pytest.fixture
def expected(innereye, exported_ball, ball_image, tmp_path) -> bytes:
    """What PyTorch makes of the image."""
    target = tmp_path / "expected.nii.gz"
    outcome = innereye("score", exported_ball, ball_image, "--output", target, "--runtime", "torch", "--json")
    assert json.loads(outcome.stdout)["structures"]["ball"]["voxels"] > 100
    return target.read_bytes()


@pytest.fixture
def without_torch(tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a module or script in a process where PyTorch cannot be imported."""

    def run(*arguments: object, plugins: str | None = None) -> subprocess.CompletedProcess[str]:
        chosen = {} if plugins is None else {"INNEREYE_LOAD_PLUGINS": plugins}
        return subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)],
            env={**os.environ, **chosen, "OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_an_installation_without_the_segmentation_plugin_scores(
    without_torch, exported_ball, ball_image, expected, tmp_path, runtime
) -> None:
    done = without_torch("innereye_core", "score", exported_ball, ball_image, "--json", plugins=f"imaging,{runtime}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runtime"] == runtime
    assert (tmp_path / "segmentation.nii.gz").read_bytes() == expected


def test_the_segmentation_plugin_without_pytorch_stands_aside(
    without_torch, exported_ball, ball_image, expected, tmp_path
) -> None:
    plugins = "imaging,segmentation,onnx"
    done = without_torch("innereye_core", "score", exported_ball, ball_image, "--json", plugins=plugins)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runtime"] == "onnx"
    assert (tmp_path / "segmentation.nii.gz").read_bytes() == expected


def test_score_py_of_an_exported_package_scores(without_torch, exported_ball, ball_image, expected, tmp_path) -> None:
    package = shutil.copytree(exported_ball, tmp_path / "elsewhere" / "final_model")
    done = without_torch(package / "score.py", ball_image, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runtime"] in ("onnx", "openvino")
    assert (package / "segmentation.nii.gz").read_bytes() == expected


def test_package_that_was_not_exported_is_refused_in_one_line(without_torch, ball_package, ball_image) -> None:
    done = without_torch("innereye_core", "score", ball_package, ball_image, plugins="imaging,segmentation,onnx")
    assert done.returncode == 6
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == done.stderr.splitlines()[-1:]
    assert "pip install innereye-segmentation" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("plugin", ["plugins/onnx[cpu]", "plugins/openvino"])
def test_a_fresh_environment_without_pytorch_scores(exported_ball, ball_image, expected, tmp_path, plugin) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    parts = [str(ROOT / part) for part in ("packages/core", "packages/imaging", plugin)]
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PIP_CONSTRAINT")}
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, *parts], env=environment, check=True)
    assert subprocess.run([python, "-c", "import torch"], stderr=subprocess.DEVNULL, check=False).returncode != 0
    score = [str(python), "-m", "innereye_core", "score", str(exported_ball), str(ball_image)]
    done = subprocess.run(score, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "segmentation.nii.gz").read_bytes() == expected
