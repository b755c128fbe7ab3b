"""What the tests of this distribution share: the brain, and one run of the demo as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from innereye_core.host import Host
from innereye_core.plugins import PluginModule
from innereye_demo.brain import Brain, load_brain


@pytest.fixture(scope="session")
def brain() -> Brain:
    return load_brain()


@pytest.fixture(scope="session")
def providers() -> Host:
    """What imaging and segmentation offer, whatever else is installed."""
    return Host(
        [
            PluginModule("imaging", "innereye_imaging.plugin"),
            PluginModule("segmentation", "innereye_segmentation.plugin"),
        ]
    )


@dataclass(frozen=True)
class FinishedDemo:
    """A run of ``innereye demo``."""

    folder: Path
    process: subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def run_demo(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FinishedDemo]:
    """Runs ``innereye demo --output OUT …`` in a process of its own."""

    def run(*options: str) -> FinishedDemo:
        home = tmp_path_factory.mktemp("demo")
        environment = {**os.environ, "INNEREYE_REGISTRY": "", "INNEREYE_REGISTRY_DIR": str(home / "another registry")}
        command = [sys.executable, "-m", "innereye_core", "demo", "--output", "brain", *options]
        process = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=1200)
        assert process.returncode == 0, process.stderr
        return FinishedDemo(home / "brain", process)

    return run


@pytest.fixture(scope="session")
def finished_demo(run_demo: Callable[..., FinishedDemo]) -> FinishedDemo:
    return run_demo()
