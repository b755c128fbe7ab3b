"""Gathers the Conda environment files that are merged for a package, the toolbox's own requirements among them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core.errors import InputError, MissingPluginError
from innereye_core.model import EnvironmentFile, Run, ToolboxSource

if TYPE_CHECKING:
    from packaging.requirements import Requirement

ENVIRONMENT_FILE = "environment.yml"

TOOLBOX, RUN, EXTRA_CODE, COMMAND_LINE = 100, 200, 300, 400
"""Priorities: files are merged in ascending order, and the last name wins."""


def gather_environment_files(
    run: Run,
    toolbox: Sequence[ToolboxSource],
    extra_code: Path | None,
    from_plugins: Sequence[EnvironmentFile],
    from_command_line: Sequence[Path],
    folder: Path,
) -> tuple[EnvironmentFile, ...]:
    """Every environment file of a package, in the order of merging.

    Args:
        run: its environment.yml, or else that of its parent run, takes part if it is there.
        toolbox: the third-party requirements of each distribution that scoring needs take part.
        extra_code: its environment.yml takes part if it is there.
        from_plugins: what ``innereye_environment_files`` gave.
        from_command_line: in the order given.
        folder: where the files with the toolbox's requirements are written.

    Labels hold no folder of this machine, because warnings about the files travel in the manifest.

    Raises:
        InputError: a file of the command line is not there.
    """
    files = [*_toolbox_requirements(toolbox, folder), *from_plugins]
    for home in (run.folder, run.inherits_from):
        if home is not None and (home / ENVIRONMENT_FILE).is_file():
            files.append(EnvironmentFile(home / ENVIRONMENT_FILE, RUN, f"{home.name}/{ENVIRONMENT_FILE}"))
            break
    if extra_code is not None and (extra_code / ENVIRONMENT_FILE).is_file():
        label = f"{extra_code.name}/{ENVIRONMENT_FILE}"
        files.append(EnvironmentFile(extra_code / ENVIRONMENT_FILE, EXTRA_CODE, label))
    for path in from_command_line:
        if not path.is_file():
            raise InputError(f"{path}: no such environment file")
        files.append(EnvironmentFile(path, COMMAND_LINE, path.name if path.is_absolute() else str(path)))
    return tuple(sorted(files, key=lambda file: file.priority))


def third_party_requirements(distribution: str) -> list[Requirement]:
    """Requirements of an installed distribution, without those on other distributions of this project.

    Raises:
        MissingPluginError: the distribution is not installed.
    """
    from packaging.requirements import Requirement

    try:
        stated = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise MissingPluginError(
            f"distribution {distribution!r} is not installed, so what it needs is unknown: pip install {distribution}"
        ) from None
    requirements = [Requirement(text) for text in stated]
    needed = [
        requirement for requirement in requirements if requirement.marker is None or requirement.marker.evaluate()
    ]
    third_party = [requirement for requirement in needed if not requirement.name.startswith("innereye-")]
    for requirement in third_party:
        requirement.marker = None  # it was looked at for this machine, and no Conda file could hold it
    return sorted(third_party, key=lambda requirement: requirement.name.lower())


def _toolbox_requirements(toolbox: Sequence[ToolboxSource], folder: Path) -> list[EnvironmentFile]:
    files = []
    for distribution in dict.fromkeys(source.distribution for source in toolbox if source.needed_to_score):
        requirements = third_party_requirements(distribution)
        python = (importlib.metadata.metadata(distribution)["Requires-Python"] or "").replace(" ", "")
        lines = ["dependencies:", f"  - python{python}", "  - pip", "  - pip:"]
        lines += [f"      - {requirement}" for requirement in requirements]
        path = folder / f"{distribution}.yml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        files.append(EnvironmentFile(path, TOOLBOX, f"requirements of {distribution}"))
    return files
