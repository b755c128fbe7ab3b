"""The model of an endpoint: loaded once, segments one study at a time, and says what it did as a JSON document."""

from __future__ import annotations

import logging
import os
import re
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from innereye_core.config import ModelConfig, as_plain
from innereye_core.host import Host
from innereye_core.model import ScoreResult
from innereye_core.registered_models import LoadedModel
from innereye_core.scoring import score

if TYPE_CHECKING:
    from innereye_core.contract.providers import Device, Runtime

_log = logging.getLogger(__name__)

_MODELS_OF_AZUREML = "azureml-models"
"""AzureML mounts the models of a deployment at ``…/azureml-models/NAME/VERSION``."""


class ServedModel:
    """A loaded model that any number of threads may ask for segmentations.

    Raises:
        InnerEyeError: the package cannot score here: its plugins, their libraries, or its networks cannot be loaded.
    """

    def __init__(self, loaded: LoadedModel, host: Host) -> None:
        host.scorer()
        host.image_formats()
        _try_networks(loaded, host.runtimes())
        self._loaded = loaded
        self._host = host
        self._one_at_a_time = threading.Lock()

    @property
    def config(self) -> ModelConfig:
        """The model config."""
        return self._loaded.files.config

    @property
    def title(self) -> str:
        """The model id where AzureML mounts a registered model, else the name in the config."""
        above = self._loaded.package.folder.parents
        if len(above) > 2 and above[2].name == _MODELS_OF_AZUREML and re.fullmatch(r"[1-9][0-9]*", above[0].name):
            return f"{above[1].name}:{above[0].name}"
        return self.config.model_name

    def segment(self, images: Sequence[Path], output: Path) -> dict[str, Any]:
        """Segment one study, and describe the result as a JSON document, without the segmentation.

        One study at a time, because each takes all processors, or the whole GPU, and most of the memory.

        Args:
            images: one file per image channel, in the order of the config.
            output: where the segmentation is written; not overwritten.

        Raises:
            InnerEyeError: as :func:`innereye_core.score` does.
        """
        with self._one_at_a_time:
            result = score(self._loaded, images, output=output, host=self._host)
        return self._document(result)

    def _document(self, result: ScoreResult) -> dict[str, Any]:
        return {
            "model": self.title,
            "structures": as_plain(result.structures),
            "checks": as_plain(result.checks),
            "review": list(result.review),
            "seconds": result.seconds,
            "runtime": result.runtime,
        }

    def public_message(self, error: Exception, *folders: Path) -> str:
        """The error's one line, without where the package and ``folders`` lie on this machine."""
        message = " ".join(str(error).split())
        for folder in (*folders, self._loaded.package.folder):
            message = message.replace(f"{folder}{os.sep}", "").replace(str(folder), folder.name)
        return message


def _try_networks(loaded: LoadedModel, runtimes: Sequence[Runtime]) -> None:
    """Load the networks as scoring will, so that what is wrong with them is said before there is a patient.

    It also imports the runtime's library, which takes longer than many an endpoint gives a request.
    """
    devices: tuple[Device, ...] = ("cuda", "cpu")
    for device in devices:
        ranks = [(rank, runtime) for runtime in runtimes if (rank := runtime.rank(loaded.files, device)) is not None]
        if ranks:
            _, fastest = max(ranks, key=lambda candidate: candidate[0])
            fastest.load(loaded.files, device)
            return


def log_unexpected(error: BaseException) -> None:
    """Log where an error came from, without its message, which may quote from a patient's data."""
    _log.error("unexpected %s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
