"""What the tests of this folder share: small real runs and packages, and the command line in-process."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from ball_runs import write_ball, write_run


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    exit_code: int
    stdout: str
    stderr: str

    def refused(self, exit_code: int, *words: str) -> None:
        """Assert the contract of errors: the exit code, one line on stderr, no traceback, the words that help."""
        assert self.exit_code == exit_code, self
        lines = [line for line in self.stderr.splitlines() if not line.startswith(("warning: ", "unchecked: "))]
        assert len(lines) == 1, self.stderr
        assert lines[0].startswith("error: ")
        assert "Traceback" not in self.stderr
        for word in words:
            assert word in lines[0], lines[0]


@pytest.fixture
def innereye(capfd, monkeypatch, tmp_path_factory):
    """Run ``innereye`` in this process, as a user in an empty folder with a registry of his own."""
    from innereye_core.cli.group import innereye as command
    from innereye_core.cli.main import run

    monkeypatch.setenv("INNEREYE_REGISTRY_DIR", str(tmp_path_factory.mktemp("registry")))
    monkeypatch.delenv("INNEREYE_REGISTRY", raising=False)
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))

    def invoke(*arguments: object) -> Outcome:
        capfd.readouterr()
        exit_code = run(command, [str(argument) for argument in arguments], "innereye")
        captured = capfd.readouterr()
        return Outcome(exit_code, captured.out, captured.err)

    return invoke


@pytest.fixture(scope="session")
def _pristine_run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("pristine") / "run")


@pytest.fixture
def ball_run(_pristine_run, tmp_path) -> Path:
    """A run that the test may change."""
    return shutil.copytree(_pristine_run, tmp_path / "run")


@pytest.fixture(scope="session")
def _pristine_package(_pristine_run, tmp_path_factory) -> Path:
    from innereye_core import package

    folder = tmp_path_factory.mktemp("packaged")
    return package(_pristine_run, output=folder).folder


@pytest.fixture
def ball_package(_pristine_package, tmp_path) -> Path:
    """A package that the test may change."""
    return shutil.copytree(_pristine_package, tmp_path / "package" / "final_model")


@pytest.fixture
def ball_image(tmp_path) -> Path:
    """A new patient."""
    return write_ball(tmp_path, 7)[0]
