"""One study per file of a mini-batch: the segmentations go into the batch job's output folder, with a row for each."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from innereye_core.endpoint.served import ServedModel, log_unexpected
from innereye_core.endpoint.uploads import refuse_dicom
from innereye_core.errors import InnerEyeError, StorageError, UsageError
from innereye_core.publishing import storage_errors

OUTPUT_VARIABLE = "AZUREML_BI_OUTPUT_PATH"
"""Names the folder that a batch job keeps, in the environment of its processes."""

_LONGEST_NAME = 100


class Row(dict[str, Any]):
    """What became of one study. As text it is JSON, because AzureML appends rows as text to predictions.csv."""

    def __str__(self) -> str:
        return json.dumps(self, allow_nan=False)


def segment_batch(model: ServedModel, paths: Sequence[object]) -> list[Row]:
    """Segment the studies of a mini-batch, each an image file, into the folder that ``AZUREML_BI_OUTPUT_PATH`` names.

    Of each study, ``NAME-<random>.json`` and, unless it failed, ``NAME-<random>.nii.gz`` appear there. Nothing is ever
    overwritten, whatever the names of the inputs are, and however many processes work at the same time.

    Args:
        model: what to segment with; it must take one image per study.
        paths: the image files.

    Returns:
        One row per path, in their order, which is also what its JSON file holds: ``image`` (the path),
        ``segmentation`` (path, or None if the study failed), ``error`` (one line, or None), ``model``, and, unless it
        failed, ``structures``, ``checks``, ``seconds``, ``runtime``.

    Raises:
        UsageError: the model takes several images per study, or there is no output folder.
        StorageError: the output folder cannot be written to.
    """
    channels = model.config.image_channels
    if len(channels) != 1:
        raise UsageError(
            f"{model.title} takes {len(channels)} images per study ({', '.join(channels)}), but a batch endpoint deals "
            "out single files, in any order; use an online endpoint, or 'innereye score'"
        )
    folder_name = os.environ.get(OUTPUT_VARIABLE)
    if not folder_name:
        raise UsageError(f"{OUTPUT_VARIABLE} is not set; set it to the folder that segmentations are to be written to")
    folder = Path(folder_name).resolve()
    with storage_errors(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
    return [_segment(model, str(path), folder) for path in paths]


def _segment(model: ServedModel, image: str, folder: Path) -> Row:
    name = _new_name(image)
    output = folder / f"{name}.nii.gz"
    row = Row(image=image, segmentation=None, error=None, model=model.title)
    try:
        path = Path(image)
        if path.is_file():
            with path.open("rb") as file:
                refuse_dicom(file.read(4))
        row.update(model.segment([path], output), segmentation=str(output))
    except StorageError:  # not the study's fault, and there is nowhere to say it
        raise
    except InnerEyeError as error:
        row["error"] = model.public_message(error)
    except Exception as error:
        log_unexpected(error)
        row["error"] = " ".join(f"unexpected {type(error).__name__}: {error}".split())
    _write(row, folder / f"{name}.json")
    return row


def _write(row: Row, path: Path) -> None:
    draft = path.with_name(f".{path.name}")
    with storage_errors(str(path)):
        draft.write_text(f"{row}\n", encoding="utf-8")
        draft.replace(path)


def _new_name(image: str) -> str:
    """A name that no other study gets, on any node: the input's own without its ending, and a random number."""
    stem = re.sub(r"(\.nii)?\.[A-Za-z0-9]+$", "", Path(image).name)
    return f"{re.sub(r'[^A-Za-z0-9._-]', '_', stem)[:_LONGEST_NAME].lstrip('.') or 'image'}-{secrets.token_hex(4)}"
