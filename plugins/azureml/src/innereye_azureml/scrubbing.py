"""Takes secrets out of texts: tokens, client secrets, and the signatures of SAS URLs."""

from __future__ import annotations

import os
import re

SECRET_VARIABLES = ("INNEREYE_AZUREML_TOKEN", "AZURE_CLIENT_SECRET", "AZUREML_RUN_TOKEN", "AZUREML_RUN_TOKEN_PASS")
"""Environment variables whose values are secrets."""

_HIDDEN = "***"
_PATTERNS = (
    # A SAS signature, also where the URL itself is percent-encoded.
    re.compile(r"(?<![A-Za-z])(sig(?:=|%3[Dd]))[^&\s\"'<>]+"),
    # A JSON Web Token, whole or in part: base64 of '{"' and what follows.
    re.compile(r"()\beyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)*"),
    re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]+"),
    re.compile(r"(?i)\b(client_secret[\"']?\s*[=:]\s*[\"']?)[^&\s\"']+"),
)


def scrub(text: str) -> str:
    """The text with ``***`` in place of everything that is known to be, or looks like, a secret."""
    for name in SECRET_VARIABLES:
        value = os.environ.get(name)
        if value:
            text = text.replace(value, _HIDDEN)
    for pattern in _PATTERNS:
        text = pattern.sub(lambda match: match[1] + _HIDDEN, text)
    return text
