"""Core's environment merger: ``conda-merge``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from innereye_core.model import EnvironmentFile, MergedEnvironment


class CondaMerge:
    """Unites Conda environment files with conda-merge's functions, and refuses what they would silently get wrong."""

    name = "conda-merge"

    def merge(
        self, files: Sequence[EnvironmentFile], name: str | None = None, extra_code: Path | None = None
    ) -> MergedEnvironment:
        """Merge ``files`` in their order; see :func:`innereye_core.environments.merging.merge_environments`.

        Args:
            files: at least one file.
            name: name of the merged environment; None: the last name in the files.
            extra_code: folder that relative ``pip install -e`` lines may point into.

        Raises:
            InputError: a file is malformed, or two contradict each other; files and lines are named.
        """
        from innereye_core.environments.merging import merge_environments

        return merge_environments(files, name, extra_code)
