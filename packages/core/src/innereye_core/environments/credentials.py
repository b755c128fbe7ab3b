"""Finds credentials in URLs, so that none is printed and none travels inside a model package."""

from __future__ import annotations

import re

_HIDDEN = "***"

_VARIABLE = re.compile(r"\$\{\w+\}|\$\w+")
"""A reference to an environment variable, which conda and pip replace: no secret by itself."""

_AUTHORITY = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#\s]*)")
_PORT = re.compile(r"\d*|\$.*|.*\]:?\d*")
"""What may follow the first colon of a host: a port, or the rest of an IPv6 address."""
_WITHOUT_SCHEME = re.compile(r"(?<![\w:/])(?!mailto:)[^\s/@:]+:(?P<secret>[^\s/@:]+)@(?=[\w-]+[./:])")
_CONDA_TOKEN = re.compile(r"(?P<before>(?:://\S*?/|^[\w-]+(?:\.[\w-]+)+/|^(?=t/tk-))t/)(?P<secret>[A-Za-z0-9_-]+)")
_QUERY = re.compile(
    r"(?P<before>[?&;][\w.-]*(?:token|secret|passw(?:or)?d|pwd|sig|signature|credential|auth|key)=)(?P<secret>[^&;#\s]+)",
    re.IGNORECASE,
)
_VERSION_CONTROL = re.compile(r"\b(?:git|hg|svn|bzr)(?:\+|://)")


def redacted(text: str) -> str:
    """``text`` with every credential in it replaced by ``***``; the very same text where there is none.

    Credentials are a user or password before the host, Anaconda's ``/t/<token>/``, and query parameters such as
    ``token=``. ``${NAME}`` is none, nor is the account name of SSH (``git+ssh://git@host/…``).
    """
    text = _without_malformed_url(text)
    text = _AUTHORITY.sub(_without_user_info, text)
    text = _WITHOUT_SCHEME.sub(lambda match: match[0] if _is_variable(match["secret"]) else f"{_HIDDEN}@", text)
    if not _VERSION_CONTROL.search(text):
        text = _CONDA_TOKEN.sub(_without_secret, text)
    return _QUERY.sub(_without_secret, text)


def has_credentials(text: str) -> bool:
    """Whether ``text`` holds a URL with a credential in it."""
    return redacted(text) != text


def _without_malformed_url(text: str) -> str:
    """Cut ``text`` off at a port that is no number: a password with a slash or blank that was not escaped."""
    for match in _AUTHORITY.finditer(text):
        _, colon, port = match["authority"].partition(":")
        is_web = match["scheme"].lower().endswith(("http", "https"))
        if is_web and colon and "@" not in port and not _PORT.fullmatch(port):
            return f"{text[: match.start()]}{match['scheme']}://{_HIDDEN}"
    return text


def _without_user_info(match: re.Match[str]) -> str:
    user_info, at, host = match["authority"].rpartition("@")
    user, _, password = user_info.partition(":")
    over_ssh = match["scheme"].lower().endswith("ssh")
    harmless_user = over_ssh or user == "git" or _is_variable(user)
    if not at or (harmless_user and _is_variable(password)):
        return match[0]
    return f"{match['scheme']}://{_HIDDEN}@{host}"


def _without_secret(match: re.Match[str]) -> str:
    return match[0] if _is_variable(match["secret"]) else match["before"] + _HIDDEN


def _is_variable(text: str) -> bool:
    return not _VARIABLE.sub("", text)
