"""What AzureML takes as the name, tags, properties and description of a model; checked before anything is uploaded.

The name's pattern is azureml-core's. The numbers are those that "Service limits in Azure Machine Learning" gives for
runs; it gives none for models, whose tags mostly are those of a run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from innereye_core.errors import UsageError
from innereye_core.model import Registration

MODEL_NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}"
MAX_ENTRIES = 50
MAX_KEY_LENGTH = 100
MAX_VALUE_LENGTH = 1000
MAX_DESCRIPTION_LENGTH = 5000


def check_registration(registration: Registration) -> None:
    """Refuse what AzureML would refuse after the upload.

    Raises:
        UsageError: the name, a tag, a property or the description is not acceptable.
    """
    if re.fullmatch(MODEL_NAME_PATTERN, registration.name) is None:
        raise UsageError(
            f"{registration.name!r} cannot be the name of a model; use letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit, 255 at most"
        )
    check_labels("tag", registration.tags)
    check_labels("property", registration.properties)
    if not _is_text(registration.description):
        raise UsageError(f"the description {registration.description!r} must be a text")
    if len(registration.description) > MAX_DESCRIPTION_LENGTH:
        raise UsageError(
            f"the description has {len(registration.description)} characters; AzureML takes {MAX_DESCRIPTION_LENGTH}: "
            "shorten it"
        )


def check_labels(kind: str, labels: Mapping[str, str]) -> None:
    """Refuse tags or properties that AzureML does not take.

    Args:
        kind: ``tag`` or ``property``.
        labels: all that the model or run will have.

    Raises:
        UsageError: one of them is not acceptable, or there are too many.
    """
    for key, value in labels.items():
        if not _is_text(key) or not key or "=" in key or "\n" in key or "\r" in key:
            raise UsageError(f"{kind} {key!r}: a name must be a text without '=' and line breaks, and not empty")
        if len(key) > MAX_KEY_LENGTH:
            raise UsageError(
                f"{kind} {key!r}: the name has {len(key)} characters; AzureML takes {MAX_KEY_LENGTH}: shorten it"
            )
        if not _is_text(value):
            raise UsageError(f"{kind} {key!r}: the value {value!r} must be a text")
        if len(value) > MAX_VALUE_LENGTH:
            raise UsageError(
                f"{kind} {key!r}: the value has {len(value)} characters; AzureML takes {MAX_VALUE_LENGTH}: shorten it"
            )
    if len(labels) > MAX_ENTRIES:
        raise UsageError(f"{len(labels)} {kind} entries; AzureML takes {MAX_ENTRIES}: leave some out")


def _is_text(value: object) -> bool:
    """Whether this is a string that UTF-8 can write; bytes from a command line in another encoding are not."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False
