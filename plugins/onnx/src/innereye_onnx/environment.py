"""The Conda environment in which an exported package scores without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

from innereye_core.packaging.environment_files import third_party_requirements

_TOOLBOX = ("innereye-core", "innereye-imaging")


def environment_without_torch(libraries: Sequence[str]) -> str:
    """The content of ``onnx/environment.yml``: what score.py needs to run the exported networks, and no more.

    Args:
        libraries: pip requirements of the runtimes, pinned to the versions that were compared with PyTorch.
    """
    requirements = {
        str(requirement) for distribution in _TOOLBOX for requirement in third_party_requirements(distribution)
    }
    lines = [
        "# What score.py needs to run the ONNX files of this package. PyTorch is not among it.",
        "name: innereye-onnx",
        "channels: [conda-forge]",
        "dependencies:",
        "  - python>=3.11",
        "  - pip",
        "  - pip:",
        *(f"      - {requirement}" for requirement in [*sorted(requirements, key=str.lower), *libraries]),
    ]
    return "\n".join(lines) + "\n"
