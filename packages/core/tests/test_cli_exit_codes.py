"""Every kind of error has its exit code, and is one line on stderr."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Invoke = Callable[..., Any]
Install = Callable[..., str]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fly"], ["No such command 'fly'", "--help"]),
        (["models", "sell"], ["No such command 'sell'"]),
        (["select"], ["Missing argument 'RUN'", "innereye select --help"]),
        (["select", "run", "--speed", "9"], ["No such option '--speed'"]),
        (["select", "run", "--epochs-to-test", "1,x"], ["'1,x' is no list of epochs", "100,120,140"]),
        (["select", "run", "--epochs-to-test", ""], ["'' is no list of epochs"]),
        (["register", "package", "--tag", "site"], ["'site' must read KEY=VALUE"]),
        (["register", "package", "--property", "=x"], ["'=x' must read KEY=VALUE"]),
        (["models", "tag", "Toy:1"], ["Missing argument 'KEY=VALUE...'"]),
        (["models", "download", "Toy:1"], ["Missing option '--output'"]),
        (["models", "show", "Toy"], ["'Toy' is no model id; write Name:Version"]),
        (["models", "show", "Toy:0"], ["'Toy:0' is no model id"]),
        (["models", "list", "--registry", "mlflow"], ["there is no registry 'mlflow'; there are: local"]),
        (["score", "Toy:1", "ct.nii", "--device", "tpu"], ["'tpu' is not one of 'auto', 'cpu', 'cuda'"]),
    ],
)
def test_2_wrong_usage(innereye: Invoke, arguments: list[str], words: list[str]) -> None:
    innereye(*arguments).refused(2, *words)


@pytest.mark.parametrize("option", [["--policy", "bset"], ["--packager", "zip"], ["--merge-strategy", "pip"]])
def test_2_unknown_provider(innereye: Invoke, run_folder: Path, toy: Path, option: list[str]) -> None:
    innereye("package", run_folder, *option).refused(2, f"'{option[1]}'; there are:")


def test_3_bad_input(innereye: Invoke, tmp_path: Path) -> None:
    innereye("select", tmp_path / "nowhere").refused(3, "nowhere: no such run")


def test_3_bad_config(innereye: Invoke, run_folder: Path, toy: Path) -> None:
    (run_folder / "model.yaml").write_text("schema_version: 1\n")
    innereye("deploy", run_folder).refused(3, "model.yaml:1: model_name: is required", "(and 4 more)")


def test_4_broken_trust(innereye: Invoke, run_folder: Path, toy: Path) -> None:
    innereye("package", run_folder).done()
    (run_folder / "final_model" / "InnerEye" / "extra.py").write_text("")
    innereye("models", "verify", run_folder / "final_model").refused(4, "InnerEye/extra.py is not listed")


def test_5_registry(innereye: Invoke) -> None:
    innereye("models", "show", "Toy:9").refused(5, "Toy:9 is not in the local registry")


def test_5_existing_package(innereye: Invoke, run_folder: Path, toy: Path) -> None:
    (run_folder / "final_model").mkdir()
    innereye("package", run_folder).refused(5, "final_model exists already", "--replace")


def test_6_missing_plugin(innereye: Invoke, run_folder: Path) -> None:
    innereye("select", run_folder).refused(6, "pip install innereye-imaging innereye-segmentation")


def test_6_missing_registry(innereye: Invoke) -> None:
    innereye("models", "list", "--registry", "azureml").refused(6, "pip install innereye-azureml")


def test_7_the_disk(innereye: Invoke, run_folder: Path, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    innereye("package", run_folder, "--output", tmp_path / "file" / "below").refused(7, "Not a directory")


BROKEN_POLICY = """
    from innereye_core import hookimpl

    class Broken:
        name = "broken"
        needs_scores = False

        def choose(self, candidates):
            {body}

    @hookimpl
    def innereye_policies():
        return [Broken]
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return 1 / 0", "unexpected ZeroDivisionError: division by zero; run again with --debug"),
        ("raise ValueError('first line\\nsecond line')", "unexpected ValueError: first line second line;"),
    ],
)
def test_1_unexpected_error(
    innereye: Invoke, run_folder: Path, toy: Path, install: Install, body: str, words: str
) -> None:
    install("acme", BROKEN_POLICY.format(body=body))
    innereye("select", run_folder, "--policy", "broken").refused(1, words)


def test_1_end_of_a_file_is_no_interruption(innereye: Invoke, run_folder: Path, toy: Path, install: Install) -> None:
    install("acme", BROKEN_POLICY.format(body="raise EOFError('file ends early')"))
    outcome = innereye("select", run_folder, "--policy", "broken")
    assert outcome.exit_code == 1
    assert outcome.stderr.strip().startswith("error: unexpected EOFError: file ends early")


def test_130_interrupted(innereye: Invoke, run_folder: Path, toy: Path, install: Install) -> None:
    install("acme", BROKEN_POLICY.format(body="raise KeyboardInterrupt"))
    outcome = innereye("select", run_folder, "--policy", "broken")
    assert (outcome.exit_code, outcome.stderr.strip()) == (130, "error: interrupted")


def test_ctrl_c_while_packaging_leaves_nothing(run_folder: Path, toy: Path, install: Install) -> None:
    sleeping = """
        import time
        from innereye_core import hookimpl

        class Sleepy:
            name = "sleepy"
            def build(self, plan, folder):
                (folder / "begun").write_text("")
                print("asleep", flush=True)
                time.sleep(60)

        @hookimpl
        def innereye_packagers():
            return [Sleepy]
    """
    install("acme", sleeping)
    words = [sys.executable, "-m", "innereye_core", "package", str(run_folder), "--packager", "sleepy"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asleep\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)

    assert (process.returncode, errors.strip()) == (130, "error: interrupted")
    assert not [path.name for path in run_folder.iterdir() if "final" in path.name or "staging" in path.name]
