"""The folder that the demo writes: what is where, and when it may be used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from innereye_core.errors import InputError
from innereye_core.publishing import make_folder, storage_errors


@dataclass(frozen=True)
class OutputFolder:
    """Where the demo writes."""

    path: Path

    @property
    def run(self) -> Path:
        """The training run, or the parent of the folds."""
        return self.path / "run"

    @property
    def registry(self) -> Path:
        """The registry that the model is registered in."""
        return self.path / "registry"

    @property
    def image(self) -> Path:
        """The whole brain, which is scored."""
        return self.path / "image.nii.gz"

    @property
    def segmentation(self) -> Path:
        """What the registered model found in it."""
        return self.path / "segmentation.nii.gz"

    @property
    def overlay(self) -> Path:
        """Picture of the two."""
        return self.path / "overlay.png"

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            InputError: it has something in it.
            StorageError: it cannot be made.
        """
        with storage_errors(str(self.path)):
            make_folder(self.path)
            if any(self.path.iterdir()):
                raise InputError(f"{self.path}: is not empty; choose another --output, or remove it")
