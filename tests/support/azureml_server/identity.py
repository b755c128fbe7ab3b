"""Who may call: the workspace's names, the tokens that were issued, and the service principal that may ask for one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
import uuid
from dataclasses import dataclass, field
from typing import Literal

from azureml_server.messages import Refusal

TOKEN_LIFETIME_S = 24 * 3600

TokenKind = Literal["aad", "run"]


@dataclass(frozen=True)
class Scope:
    """What names a workspace."""

    subscription: str = "11111111-2222-3333-4444-555555555555"
    resource_group: str = "radiotherapy"
    name: str = "innereye"
    location: str = "westeurope"
    workspace_id: str = "66666666-7777-8888-9999-aaaaaaaaaaaa"

    @property
    def path(self) -> str:
        """The path that routes of services go through."""
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.name}"
        )


@dataclass(frozen=True)
class ServicePrincipal:
    """An application that may log in with a secret."""

    tenant_id: str = "bbbbbbbb-cccc-dddd-eeee-ffffffffffff"
    client_id: str = "99999999-8888-7777-6666-555555555555"
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)


class Identity:
    """Issues and checks bearer tokens.

    Tokens of kind ``aad`` open everything; those of kind ``run``, which a job finds in its environment, do not open the
    resource manager, and are what ``AzureMLTokenAuthentication`` in the SDK says they are.
    """

    def __init__(self) -> None:
        self.service_principal = ServicePrincipal()
        self._key = secrets.token_bytes(16)
        self._issued: dict[str, TokenKind] = {}

    def issue(self, kind: TokenKind, audience: str = "https://management.azure.com") -> str:
        """A new token: a JWT that clients can decode, and that only this server accepts."""
        now = int(time.time())
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{self.service_principal.tenant_id}/",
            "iat": now,
            "nbf": now,
            "exp": now + TOKEN_LIFETIME_S,
            "tid": self.service_principal.tenant_id,
            "oid": "user",
            "jti": str(uuid.uuid4()),
        }
        head = _base64(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
        unsigned = f"{head}.{_base64(json.dumps(claims).encode())}"
        token = f"{unsigned}.{_base64(hmac.new(self._key, unsigned.encode(), hashlib.sha256).digest())}"
        self._issued[token] = kind
        return token

    def revoke(self, token: str) -> None:
        """Do not accept `token` any more."""
        self._issued.pop(token, None)

    def check(self, authorization: str, accepted: tuple[TokenKind, ...]) -> None:
        """Check a request's Authorization header.

        Raises:
            Refusal: The header bears no token that was issued and is of a kind that is `accepted` (401).
        """
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer" or self._issued.get(token) not in accepted:
            raise Refusal(401, "Unauthorized", "The request bears no token that this service accepts.")


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
