"""What plugins add to a package, and who is told when it is complete."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from innereye_core import package
from innereye_core.errors import UsageError
from innereye_core.host import Host
from innereye_core.manifest import verify

Install = Callable[..., str]


def assert_nothing_made(run: Path) -> None:
    assert not [path.name for path in run.iterdir() if "final" in path.name or "staging" in path.name]


def adding(path: str) -> str:
    return f"""
        from innereye_core import hookimpl
        from innereye_core.model import PlannedFile

        @hookimpl
        def innereye_package_files(plan):
            return [PlannedFile({path!r}, "notice", content=plan.config.model_name.encode())]
    """


def test_file_that_a_plugin_adds(run_folder: Path, toy: Path, install: Install) -> None:
    install("acme", adding("legal/NOTICE.txt"))

    made = package(run_folder, host=Host())

    assert (made.folder / "legal" / "NOTICE.txt").read_text() == "Toy"
    assert {record.path: record.role for record in made.manifest.files}["legal/NOTICE.txt"] == "notice"


def test_file_that_a_plugin_copies(run_folder: Path, toy: Path, install: Install) -> None:
    install(
        "acme",
        adding("NOTICE.txt").replace("content=plan.config.model_name.encode()", "source=plan.run.folder / 'run.json'"),
    )
    made = package(run_folder, host=Host())
    assert (made.folder / "NOTICE.txt").read_bytes() == (run_folder / "run.json").read_bytes()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("score.py", "which is there already"),
        ("InnerEye", "which is there already"),
        ("manifest.json", "which is there already"),
        ("../outside.txt", "leaves the folder"),
        ("/outside.txt", "leaves the folder"),
        ("", "must be a path inside the folder"),
    ],
)
def test_file_that_a_plugin_must_not_add(
    run_folder: Path, toy: Path, install: Install, path: str, message: str
) -> None:
    install("acme", adding(path))

    with pytest.raises(UsageError, match=rf"a plugin adds '{path}' to the package.*{message}"):
        package(run_folder, host=Host())

    assert_nothing_made(run_folder)


OBSERVER = """
    from innereye_core import hookimpl

    SEEN = []

    @hookimpl
    def innereye_after_package(package):
        assert (package.folder / "manifest.json").is_file()
        SEEN.append(package.folder.name)
        {then}
"""


def test_observer_sees_the_package_when_it_is_complete(run_folder: Path, toy: Path, install: Install) -> None:
    module = install("acme", OBSERVER.format(then=""))
    package(run_folder, host=Host())
    assert importlib.import_module(module).SEEN == ["final_model"]


def test_package_stands_where_an_observer_fails(
    run_folder: Path, toy: Path, install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("acme", OBSERVER.format(then="raise OSError('no mail today')"))
    host = Host()

    with caplog.at_level(logging.WARNING):
        made = package(run_folder, host=host)

    assert verify(made) == ()
    assert host.failed_observers == ["acme: innereye_after_package"]
    assert "no mail today" in caplog.text
