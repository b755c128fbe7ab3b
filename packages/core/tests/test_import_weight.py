"""``innereye --help`` is quick: nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "azureml", "pydantic", "rich", "ruamel", "scipy", "nibabel", "SimpleITK", "conda_merge"}

HELP = """
import sys
from innereye_core.cli import main

try:
    main(["--help"])
except SystemExit:
    pass
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def imported(code: str, **variables: str) -> set[str]:
    """Top-level names of all modules that are loaded after ``code``, which prints them to stderr at its end."""
    environment = {**os.environ, **variables}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_help_imports_nothing_heavy() -> None:
    assert imported(HELP) & HEAVY == set()


def test_help_imports_nothing_heavy_with_whatever_plugins_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INNEREYE_LOAD_PLUGINS")
    assert imported(HELP) & HEAVY == set()


def test_importing_the_package_imports_nothing_of_it() -> None:
    code = "import sys, innereye_core\nprint(*(n for n in sys.modules if 'innereye' in n), file=sys.stderr)"
    assert imported(code) == {"innereye_core"}


def test_marker_for_plugins_imports_nothing_heavy() -> None:
    code = "import sys\nfrom innereye_core import hookimpl\n"
    code += "print(*(n for n in sys.modules if n.startswith('innereye_core.')), file=sys.stderr)"
    assert imported(code) == {"innereye_core.contract", "innereye_core.contract.marker"}


def processor_seconds(*words: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_takes_at_most_two_and_a_half_times_what_its_libraries_take(record_property) -> None:
    ours = (sys.executable, "-m", "innereye_core", "--help")
    libraries = (sys.executable, "-c", "import click, pluggy")
    # In turns, because a machine that others use is slower at one moment than at another.
    pairs = [(processor_seconds(*ours), processor_seconds(*libraries)) for _ in range(10)][1:]

    ratio = statistics.median(pair[0] for pair in pairs) / statistics.median(pair[1] for pair in pairs)

    record_property("ratio", round(ratio, 2))
    assert ratio <= 2.5
