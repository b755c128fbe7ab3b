"""Which builds of ONNX Runtime are installed: one, or the trouble that two make."""

from __future__ import annotations

import importlib.metadata

from innereye_core.errors import MissingPluginError

_BUILDS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn")
"""Distributions that all bring the import package ``onnxruntime``."""


def check_installed() -> str:
    """Name and version of the build of ONNX Runtime that is installed.

    Two of them write the same files, so that what was installed last is what runs: a GPU build beside the CPU build
    loses CUDA without a word, and ``pip check`` finds nothing wrong.

    Raises:
        MissingPluginError: none is installed, or more than one.
    """
    found = {name: version for name in _BUILDS if (version := _version(name)) is not None}
    if not found:
        raise MissingPluginError(
            "ONNX Runtime is not installed: pip install 'innereye-onnx[cpu]', or 'innereye-onnx[gpu]' for CUDA"
        )
    if len(found) > 1:
        wanted = next((name for name in found if name != "onnxruntime"), "onnxruntime")
        raise MissingPluginError(
            f"{' and '.join(found)} are installed, which overwrite each other's files: "
            f"pip uninstall -y {' '.join(found)} && pip install {wanted}"
        )
    name, version = found.popitem()
    return f"{name} {version}"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
