"""``kill -9`` at any moment of packaging and registering leaves the old state or the new one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = 50


@pytest.mark.slow
def test_fifty_random_kills_leave_only_whole_packages(innereye, ball_run, tmp_path):
    output = tmp_path / "output"
    output.mkdir()
    started = time.monotonic()
    innereye("package", ball_run, "--output", output)
    innereye("register", output / "final_model")
    seconds_per_cycle = time.monotonic() - started
    worker = Path(__file__).with_name("packaging_worker.py")
    process = subprocess.Popen(
        [sys.executable, worker, ball_run, output], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    moments = random.Random(2026)
    seen = set()
    versions = 1
    with process:
        for _ in range(KILLS):
            print("go", file=process.stdin, flush=True)
            child = int(process.stdout.readline())
            time.sleep(moments.uniform(0, 2 * seconds_per_cycle))
            os.kill(child, signal.SIGKILL)

            assert innereye("models", "verify", output / "final_model").exit_code == 0
            validation = json.loads((output / "final_model" / "validation.json").read_text())
            seen.add(validation["selected"]["epoch"])
            models = json.loads(innereye("models", "list", "--json").stdout)
            assert [model["version"] for model in models] == list(range(1, len(models) + 1))
            for model in models[versions:]:
                assert innereye("models", "verify", model["id"]).exit_code == 0
            versions = len(models)
        process.stdin.close()

    assert versions > 10
    assert seen == {1, 2, 3}
    assert innereye("package", ball_run, "--output", output, "--replace").exit_code == 0
    assert [path.name for path in output.iterdir()] == ["final_model"]
    assert innereye("register", output / "final_model").stdout.strip() == f"Ball:{versions + 1}"
    registry = Path(os.environ["INNEREYE_REGISTRY_DIR"])
    assert not [path for path in registry.rglob("*") if "staging" in path.name]
