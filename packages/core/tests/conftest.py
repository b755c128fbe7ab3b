"""Plugins that are installed for one test, runs of a toolbox without numerical libraries, the command line in-process.

No test sees the plugins that happen to be installed where it runs, nor the user's own registry.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from toy_toolbox import (
    RUN_DICE,
    write_distribution,
    write_folds,
    write_run,
    write_toy_site,
)

from innereye_core.host import Host, installed_host


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    def done(self) -> Outcome:
        """Assert that it worked, and said nothing on stderr."""
        assert (self.exit_code, self.stderr) == (0, ""), self
        return self

    def refused(self, exit_code: int, *words: str) -> None:
        """Assert the contract of errors: the exit code, one line on stderr, no traceback, the words that help."""
        assert self.exit_code == exit_code, self
        assert len(self.stderr.splitlines()) == 1, self.stderr
        assert self.stderr.startswith("error: ")
        for word in words:
            assert word in self.stderr, self.stderr


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide the installed plugins, the user's registry and settings, and forget what a test has imported or cached."""
    monkeypatch.setenv("INNEREYE_LOAD_PLUGINS", "")
    monkeypatch.delenv("INNEREYE_DISABLED_PLUGINS", raising=False)
    monkeypatch.delenv("INNEREYE_REGISTRY", raising=False)
    monkeypatch.setenv("INNEREYE_REGISTRY_DIR", str(tmp_path_factory.getbasetemp() / "no-registry-of-this-test"))
    yield
    installed_host.cache_clear()
    temporary = str(tmp_path_factory.getbasetemp())
    for name, module in list(sys.modules.items()):
        if type(module) is not ModuleType:  # torch puts objects of its own there
            continue
        places = [module.__dict__.get("__file__"), *module.__dict__.get("__path__", ())]
        if any(str(place).startswith(temporary) for place in places):
            del sys.modules[name]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a local registry of the test's own."""
    folder = tmp_path / "registry"
    monkeypatch.setenv("INNEREYE_REGISTRY_DIR", str(folder))
    return folder


# --- plugins ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Install a plugin for this test: ``install("acme", "…source of its module…")``."""

    def install_plugin(
        name: str, source: str, *, distribution: str | None = None, allowed: bool = True, point: str | None = None
    ) -> str:
        distribution = distribution or f"{name}-innereye"
        module = f"{distribution.replace('-', '_')}_plugin"
        site = tmp_path / "site" / distribution
        site.mkdir(parents=True)
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        write_distribution(site, distribution, {name: point or module})
        use(site, monkeypatch, name if allowed else None)
        return module

    return install_plugin


def use(site: Path, monkeypatch: pytest.MonkeyPatch, plugin: str | None) -> None:
    """Make a site folder importable, here and in subprocesses, and let one plugin in it be loaded."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    if plugin is not None:
        allowed = [name for name in os.environ["INNEREYE_LOAD_PLUGINS"].split(",") if name]
        monkeypatch.setenv("INNEREYE_LOAD_PLUGINS", ",".join([*allowed, plugin]))


@pytest.fixture(scope="session")
def toy_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_site(tmp_path_factory.mktemp("toy-site"))


@pytest.fixture
def toy(toy_site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy toolbox, installed: formats of checkpoints, a runtime, an evaluator, a scorer, all without torch.

    Packages are made by the dozen with it, and none has to survive a power cut: nobody waits for the disk.
    """
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    use(toy_site, monkeypatch, "toy")
    return toy_site


@pytest.fixture
def host(toy: Path) -> Host:
    """A host with core and the toy toolbox."""
    return Host()


@pytest.fixture
def opened(toy: Path) -> list[str]:
    """Names of the checkpoint files that the toy toolbox has opened so far."""
    found: list[str] = importlib.import_module("toy_innereye.checkpoints").OPENED
    return found


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run of three epochs, of which the second is best."""
    return write_run(tmp_path / "run", RUN_DICE)


@pytest.fixture(scope="session")
def pristine_package(toy_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of a run; not to be changed."""
    from innereye_core import package

    run = write_run(tmp_path_factory.mktemp("pristine") / "run", RUN_DICE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(toy_site)
        patch.setenv("INNEREYE_LOAD_PLUGINS", "toy")
        return package(run, host=Host()).folder


@pytest.fixture
def packaged(pristine_package: Path, tmp_path: Path, toy: Path) -> Path:
    """A package in its run that the test may change: the second epoch, whose network finds what is above 0.2."""
    return shutil.copytree(pristine_package.parent, tmp_path / "run") / "final_model"


@pytest.fixture
def folds(tmp_path: Path) -> Path:
    """A parent run of three folds, whose best epochs are 1, 2 and 3."""
    return write_folds(tmp_path / "parent")


@pytest.fixture(scope="session")
def new_run() -> Callable[..., Path]:
    """Write a run at a place: an epoch for each Dice value."""
    return write_run


@pytest.fixture(scope="session")
def new_folds() -> Callable[[Path], Path]:
    """Write the parent run of three folds at a place."""
    return write_folds


# --- another user -----------------------------------------------------------------------------------------------------


@pytest.fixture
def as_nobody() -> Callable[[Path, Callable[[], object]], str]:
    """What work returns or raises, as text, done by a user who may read a folder, but not write into it."""

    def run(folder: Path, work: Callable[[], object]) -> str:
        if os.getuid() == 0:
            for above in (folder, *folder.parents[:-2]):
                above.chmod(0o755)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            else:
                folder.chmod(0o555)
            try:
                outcome = str(work())
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"
            os.write(writing, outcome.encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            return pipe.read()

    return run


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def innereye(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, registry: Path
) -> Callable[..., Outcome]:
    """Run ``innereye`` in this process, in an empty current folder, with a registry of the test's own."""
    from innereye_core.cli.group import innereye as command
    from innereye_core.cli.main import run

    current = tmp_path / "current"
    current.mkdir()
    monkeypatch.chdir(current)

    def invoke(*arguments: object) -> Outcome:
        installed_host.cache_clear()
        capfd.readouterr()
        exit_code = run(command, [str(argument) for argument in arguments], "innereye")
        captured = capfd.readouterr()
        return Outcome(exit_code, captured.out, captured.err)

    return invoke


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., Outcome]:
    """Run a command in a process of its own."""

    def invoke(*arguments: object, folder: Path | None = None, **variables: str) -> Outcome:
        done = subprocess.run(
            [str(argument) for argument in arguments],
            cwd=folder or tmp_path,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return invoke


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference data that lies beside the checkout."""
    folder = Path(__file__).resolve().parents[4] / "shared"
    if not folder.is_dir():
        pytest.skip(f"the reference data is not there: {folder}")
    return folder
