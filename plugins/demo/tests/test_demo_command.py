"""The command around the demo: what it refuses, and what is left when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from innereye_core.cli.group import innereye
from innereye_core.cli.main import run

Innereye = Callable[..., tuple[int, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Innereye:
    """Runs ``innereye …`` in this process: exit code and stderr."""

    def call(*arguments: object) -> tuple[int, str]:
        code = run(innereye, [str(argument) for argument in arguments], "innereye")
        return code, capsys.readouterr().err

    return call


@pytest.mark.parametrize("folds", ["0", "1", "6", "three"])
def test_number_of_folds_that_makes_no_sense_is_wrong_usage(call: Innereye, tmp_path: Path, folds: str) -> None:
    code, error = call("demo", "--output", tmp_path / "brain", "--folds", folds)

    assert code == 2
    assert "--folds" in error
    assert not (tmp_path / "brain").exists()


def test_folder_with_something_in_it_is_refused_and_kept(call: Innereye, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")

    code, error = call("demo", "--output", tmp_path)

    assert code == 3
    assert error == f"error: {tmp_path}: is not empty; choose another --output, or remove it\n"
    assert [path.read_text() for path in tmp_path.iterdir()] == ["ten years of work"]


def test_file_in_place_of_the_folder_is_wrong_usage(call: Innereye, tmp_path: Path) -> None:
    (tmp_path / "brain").write_text("")

    code, error = call("demo", "--output", tmp_path / "brain")

    assert code == 2
    assert error.count("\n") == 1


def test_file_among_the_parents_of_the_folder_is_a_storage_error(call: Innereye, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    code, error = call("demo", "--output", tmp_path / "file" / "brain")

    assert code == 7
    assert error.count("\n") == 1


def test_missing_pipeline_is_said_before_anything_is_made(tmp_path: Path) -> None:
    environment = {**os.environ, "INNEREYE_DISABLED_PLUGINS": "imaging"}
    command = [sys.executable, "-m", "innereye_core", "demo", "--output", "brain"]

    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert process.returncode == 6
    assert process.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_plugin_is_light() -> None:
    heavy = {"torch", "numpy", "nilearn", "nibabel", "matplotlib", "rich", "pydantic", "innereye_demo.cli"}
    code = f"import sys, innereye_demo.plugin; print(sorted({heavy} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_ctrl_c_in_the_middle_of_the_training_leaves_an_empty_folder(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "innereye_core", "demo", "--output", "brain"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("brain/.*/run/checkpoints/1_checkpoint.pth.tar")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)

    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)

    assert process.returncode == 130
    assert error.split("\n") == ["", "error: interrupted", ""]  # click ends the terminal's line with its ^C first
    assert list((tmp_path / "brain").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_full_disk_in_the_middle_of_the_training_leaves_an_empty_folder(tmp_path: Path) -> None:
    import resource

    too_small_for_a_checkpoint = 600_000

    process = subprocess.run(
        [sys.executable, "-m", "innereye_core", "demo", "--output", "brain"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (too_small_for_a_checkpoint,) * 2),
    )

    assert process.returncode == 7
    assert process.stderr.count("\n") == 1
    assert list((tmp_path / "brain").iterdir()) == []
