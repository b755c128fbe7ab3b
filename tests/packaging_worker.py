"""Packages and registers over and over, in children that can be killed: for test_crash_safety.py.

Usage: packaging_worker.py RUN OUTPUT. For each line on stdin a child is forked and its process id printed. Everything
is imported before, so that kills hit the work and not the imports.
"""

import itertools
import os
import sys
from pathlib import Path

import innereye_imaging.pipeline  # noqa: F401
import innereye_segmentation.networks
import innereye_segmentation.runtime  # noqa: F401
from innereye_core import PackageOptions, SelectionOptions, package, register
from innereye_core.host import installed_host


def work(run: Path, output: Path) -> None:
    for epoch in itertools.cycle((1, 2, 3)):
        selection = SelectionOptions(epochs_to_test=(epoch,))
        register(package(run, selection, PackageOptions(replace=True), output=output))


if __name__ == "__main__":
    installed_host()
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            work(Path(sys.argv[1]), Path(sys.argv[2]))
        print(child, flush=True)
        os.waitpid(child, 0)
