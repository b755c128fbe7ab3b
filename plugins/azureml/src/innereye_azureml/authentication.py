"""How to log in to AzureML: as the environment variables say, or as they let conclude."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field

from innereye_core.errors import UsageError

METHOD_VARIABLE = "INNEREYE_AZUREML_AUTHENTICATION"
TOKEN_VARIABLE = "INNEREYE_AZUREML_TOKEN"
PRINCIPAL_VARIABLES = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")

_METHODS = ("interactive", "service-principal", "managed-identity", "token")


@dataclass(frozen=True)
class InteractiveLogin:
    """Log in with a browser, or as ``az login`` did."""

    tenant_id: str | None


@dataclass(frozen=True)
class ServicePrincipal:
    """Log in as an application."""

    tenant_id: str
    client_id: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class ManagedIdentity:
    """Log in as the machine; ``client_id`` names a user-assigned identity."""

    client_id: str | None


@dataclass(frozen=True)
class Token:
    """Use a token for https://management.azure.com that somebody else got."""

    token: str = field(repr=False)


Authentication = InteractiveLogin | ServicePrincipal | ManagedIdentity | Token


def configured_authentication() -> Authentication:
    """The login that ``INNEREYE_AZUREML_AUTHENTICATION`` names, else the one that there are variables for.

    Raises:
        UsageError: there is no such way, or something that it needs is missing.
    """
    method = os.environ.get(METHOD_VARIABLE) or _detected_method()
    match method:
        case "token":
            return Token(_needed(method, TOKEN_VARIABLE)[0])
        case "service-principal":
            return ServicePrincipal(*_needed(method, *PRINCIPAL_VARIABLES))
        case "managed-identity":
            return ManagedIdentity(os.environ.get("AZURE_CLIENT_ID") or None)
        case "interactive":
            return InteractiveLogin(os.environ.get("AZURE_TENANT_ID") or None)
    raise UsageError(f"{METHOD_VARIABLE}={method}: there is no such way to log in; write {', '.join(_METHODS)}")


def _detected_method() -> str:
    if os.environ.get(TOKEN_VARIABLE):
        return "token"
    if any(os.environ.get(name) for name in PRINCIPAL_VARIABLES):
        return "service-principal"
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(
            f"cannot log in to AzureML: there is no terminal to log in on; set {', '.join(PRINCIPAL_VARIABLES)}, "
            f"or {TOKEN_VARIABLE}, or {METHOD_VARIABLE}=managed-identity"
        )
    return "interactive"


def _needed(method: str, *names: str) -> list[str]:
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"cannot log in to AzureML by {method}: {', '.join(missing)} is not set; "
            f"set it, or choose another way with {METHOD_VARIABLE}"
        )
    return [os.environ[name] for name in names]
