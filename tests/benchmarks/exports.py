"""The packages that contenders need: as packaged, or exported with ``innereye export`` when first asked for."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.contenders import Contender
from benchmarks.inputs import Inputs
from benchmarks.processes import run
from benchmarks.sizes import NetworkSize


def package_of(contender: Contender, network: NetworkSize, inputs: Inputs) -> Path:
    """The package of a network that a contender can use.

    Raises:
        ContenderFailed: it cannot be exported.
    """
    package = inputs.package(network, exported=contender.exported)
    if contender.exported and not package.is_dir():
        command = [sys.executable, "-m", "innereye_core", "export", "onnx"]
        run([*command, str(inputs.package(network)), "--output", str(package.parent)])
    return package
