"""How to log in: what the environment variables say, what they let conclude, and what comes of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import StringIO

import pytest
from azureml_clients import Client, Refused
from azureml_server import AzureMLServer

from innereye_azureml.authentication import (
    InteractiveLogin,
    ManagedIdentity,
    ServicePrincipal,
    Token,
    configured_authentication,
)
from innereye_core.errors import UsageError

METHOD = "INNEREYE_AZUREML_AUTHENTICATION"
PRINCIPAL = {"AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "client", "AZURE_CLIENT_SECRET": "the secret"}

Set = Callable[..., None]


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Nothing is set but what the test sets, and there is no terminal."""
    for name in (METHOD, "INNEREYE_AZUREML_TOKEN", *PRINCIPAL):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stdin", StringIO())

    def put(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


def test_a_token_is_used(variables: Set) -> None:
    variables(INNEREYE_AZUREML_TOKEN="the token", **PRINCIPAL)

    assert configured_authentication() == Token("the token")


def test_a_service_principal_is_used(variables: Set) -> None:
    variables(**PRINCIPAL)

    assert configured_authentication() == ServicePrincipal("tenant", "client", "the secret")


def test_the_method_can_be_named(variables: Set) -> None:
    variables(INNEREYE_AZUREML_TOKEN="the token", **PRINCIPAL, **{METHOD: "service-principal"})

    assert isinstance(configured_authentication(), ServicePrincipal)


def test_a_managed_identity_may_be_named(variables: Set) -> None:
    variables(**{METHOD: "managed-identity"})
    assert configured_authentication() == ManagedIdentity(None)

    variables(AZURE_CLIENT_ID="client")
    assert configured_authentication() == ManagedIdentity("client")


def test_without_anything_a_person_logs_in(variables: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())

    assert configured_authentication() == InteractiveLogin(None)


def test_without_a_terminal_nobody_logs_in(variables: Set) -> None:
    with pytest.raises(UsageError, match=r"no terminal to log in on; set AZURE_TENANT_ID.* INNEREYE_AZUREML_TOKEN"):
        configured_authentication()


def test_a_login_without_a_terminal_can_be_asked_for(variables: Set) -> None:
    """After ``az login``, it needs none."""
    variables(AZURE_TENANT_ID="tenant", **{METHOD: "interactive"})

    assert configured_authentication() == InteractiveLogin("tenant")


@pytest.mark.parametrize("missing", PRINCIPAL)
def test_half_a_service_principal_is_refused(variables: Set, missing: str) -> None:
    variables(**{name: value for name, value in PRINCIPAL.items() if name != missing})

    with pytest.raises(UsageError, match=f"by service-principal: {missing} is not set"):
        configured_authentication()


def test_a_named_method_needs_its_variables(variables: Set) -> None:
    variables(**{METHOD: "token"})

    with pytest.raises(UsageError, match="INNEREYE_AZUREML_TOKEN is not set"):
        configured_authentication()


def test_an_unknown_method_is_refused(variables: Set) -> None:
    variables(**{METHOD: "password"})

    with pytest.raises(UsageError, match=f"{METHOD}=password: there is no such way .*write interactive, service-princ"):
        configured_authentication()


@pytest.mark.parametrize("login", [Token("the token"), ServicePrincipal("tenant", "client", "the secret")])
def test_secrets_are_not_shown(login: object) -> None:
    assert "the token" not in repr(login)
    assert "the secret" not in repr(login)


# --- with the SDK -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(new_client: Callable[..., Client]) -> Client:
    """A client that tests log in as they like; what fails is tried again the next time."""
    return new_client()


def log_in(client: Client, **variables: str | None) -> None:
    nothing = dict.fromkeys((METHOD, "INNEREYE_AZUREML_TOKEN", *PRINCIPAL))
    client("environment", variables=nothing | variables)


def test_a_token_that_is_none(client: Client) -> None:
    log_in(client, INNEREYE_AZUREML_TOKEN="not a token")

    with pytest.raises(Refused, match="AzureML does not accept the login"):
        client("models")


def test_a_wrong_secret(service: AzureMLServer, client: Client) -> None:
    principal = service.workspace.identity.service_principal
    log_in(
        client,
        AZURE_TENANT_ID=principal.tenant_id,
        AZURE_CLIENT_ID=principal.client_id,
        AZURE_CLIENT_SECRET="a wrong secret",
    )

    with pytest.raises(Refused, match=r"AzureML does not accept the login.*; renew the token or secret") as refused:
        client("models")

    assert refused.value.exit_code == 5
    assert "a wrong secret" not in str(refused.value) + refused.value.traceback


def test_a_managed_identity_is_handed_to_the_sdk(client: Client) -> None:
    log_in(client, **{METHOD: "managed-identity", "AZURE_CLIENT_ID": "the client"})

    assert client("login") == ["MsiAuthentication", {"client_id": "the client"}]


def test_a_service_principal_logs_in(service: AzureMLServer, client: Client) -> None:
    principal = service.workspace.identity.service_principal
    log_in(
        client,
        AZURE_TENANT_ID=principal.tenant_id,
        AZURE_CLIENT_ID=principal.client_id,
        AZURE_CLIENT_SECRET=principal.secret,
    )

    assert client("models") == []
