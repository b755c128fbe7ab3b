"""A packaged model behind AzureML's endpoints: what its score.py hands the calls of ``init`` and ``run`` to.

:mod:`~innereye_core.endpoint.served` is the model, loaded once; :mod:`~innereye_core.endpoint.online` answers requests;
:mod:`~innereye_core.endpoint.batch` works through lists of files; :mod:`~innereye_core.endpoint.uploads` takes images
from strangers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from innereye_core.endpoint.batch import segment_batch
from innereye_core.endpoint.online import answer_http, answer_json
from innereye_core.endpoint.served import ServedModel
from innereye_core.errors import UsageError
from innereye_core.own_package import own_host
from innereye_core.registered_models import load_model


class Endpoint:
    """Answers what AzureML hands to ``run``. May be called from several threads; studies are segmented in turn."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model

    def run(self, data: Any) -> Any:
        """Answer one call.

        Args:
            data: a request of AzureML's online server (:func:`~innereye_core.endpoint.online.answer_http`); the text of
                a JSON request (:func:`~innereye_core.endpoint.online.answer_json`); or a list of paths, one per study
                (:func:`~innereye_core.endpoint.batch.segment_batch`).

        Returns:
            An HTTP response, a JSON document, or a list of one row per study.

        Raises:
            InnerEyeError: text or list could not be worked with; requests get it as their answer.
        """
        if isinstance(data, str):
            return answer_json(self._model, data)
        if isinstance(data, list | tuple):
            return segment_batch(self._model, data)
        if hasattr(data, "headers") and hasattr(data, "stream"):
            return answer_http(self._model, data)
        raise UsageError(
            f"run() takes a request, JSON as text, or a list of paths to images, not {type(data).__name__}; "
            "give a batch endpoint a folder of files as its input"
        )


def open_endpoint(folder: Path) -> Endpoint:
    """Verify the package that this code is in, and load it.

    Args:
        folder: the package, resolved.

    Raises:
        IntegrityError: a file is missing, changed or not listed, or this code is not the package's own.
        InnerEyeError: the package cannot score here: its plugins, their libraries, or its networks cannot be loaded.
    """
    host = own_host(folder)
    return Endpoint(ServedModel(load_model(folder, host=host), host))
