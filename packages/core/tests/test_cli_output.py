"""What the command line says where: results on stdout, the rest on stderr, progress on a terminal only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Invoke = Callable[..., Any]
Install = Callable[..., str]


def in_process(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "innereye_core", *map(str, arguments)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_debug_shows_where_and_keeps_the_exit_code(innereye: Invoke, tmp_path: Path) -> None:
    outcome = innereye("select", tmp_path / "nowhere", "--debug")

    assert outcome.exit_code == 3
    assert outcome.stderr.startswith("Traceback (most recent call last):")
    assert outcome.stderr.splitlines()[-1].startswith("error: ")


def test_debug_may_stand_before_the_command(innereye: Invoke, tmp_path: Path) -> None:
    assert "Traceback" in innereye("--debug", "select", tmp_path / "nowhere").stderr


def test_verbose_says_what_is_done(run_folder: Path, toy: Path) -> None:
    quiet, verbose = in_process("select", run_folder), in_process("select", run_folder, "--verbose")

    assert quiet.stderr == ""
    assert "info: policy best_validation_dice chose epoch 2 of 3" in verbose.stderr.splitlines()
    assert quiet.stdout == verbose.stdout


def test_warnings_are_one_line_each_on_stderr(run_folder: Path, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "more.yml").write_text("prefix: /home/me\ndependencies: [python]\n")

    done = in_process("package", run_folder, "--environment", tmp_path / "more.yml")

    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: ")
    assert "prefix" in line


def test_terminal_that_lacks_characters_is_no_reason_to_fail(run_folder: Path, toy: Path) -> None:
    done = in_process("select", run_folder, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "epoch 2 by policy best_validation_dice" in done.stdout


def test_json_survives_a_terminal_that_lacks_characters(run_folder: Path, toy: Path) -> None:
    text = (run_folder / "model.yaml").read_text().replace("bright", "hölle")
    (run_folder / "model.yaml").write_text(text)
    for metrics in run_folder.rglob("metrics.csv"):
        metrics.write_text(metrics.read_text().replace("bright", "hölle"))

    done = in_process("select", run_folder, "--json", PYTHONIOENCODING="ascii")

    assert list(json.loads(done.stdout)["candidates"][0]["structures"]) == ["hölle"]


def test_reader_that_goes_away_early_gets_no_traceback(toy: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m innereye_core config schema | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_is_on_stderr_of_a_terminal_only(run_folder: Path, toy: Path) -> None:
    import pty

    for metrics in run_folder.rglob("metrics.csv"):
        metrics.unlink()
    (run_folder / "validation_images.json").write_text('{"p1": {"image": [0.1, 0.9], "mask": [0, 1]}}')
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "innereye_core", "select", str(run_folder), "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(theirs)
        shown = b""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
        output, _ = process.communicate(timeout=30)
    os.close(ours)

    assert json.loads(output)["selected"]["epoch"] == 1
    assert b"validation" in shown
    assert in_process("select", run_folder).stderr == ""
