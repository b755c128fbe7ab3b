"""Routes of login.microsoftonline.com and of the resource manager: tokens, subscriptions, the workspace, discovery."""

from __future__ import annotations

import hmac
import json
from urllib.parse import parse_qsl

from azureml_server.identity import TOKEN_LIFETIME_S
from azureml_server.messages import Refusal, Response, answer
from azureml_server.router import Call, Router

LOGIN_HOST = "login.microsoftonline.com"
ARM_HOST = "management.azure.com"


def _oauth_error(refusal: Refusal) -> Response:
    body = {"error": refusal.code, "error_description": refusal.message, "error_codes": [7000215]}
    return Response(refusal.status, json.dumps(body).encode(), {"Content-Type": "application/json; charset=utf-8"})


login = Router(tokens=(), write_error=_oauth_error)
arm = Router(tokens=("aad",))
discovery = Router(tokens=())


@login.route("GET", "/common/discovery/instance")
def discover_instance(call: Call) -> Response:
    """Which cloud an authority belongs to (MSAL)."""
    tenant = call.workspace.identity.service_principal.tenant_id
    return answer(
        {
            "tenant_discovery_endpoint": f"https://{LOGIN_HOST}/{tenant}/v2.0/.well-known/openid-configuration",
            "api-version": "1.1",
            "metadata": [
                {"preferred_network": LOGIN_HOST, "preferred_cache": LOGIN_HOST, "aliases": [LOGIN_HOST]},
            ],
        }
    )


@login.route("GET", "/{tenant}/v2.0/.well-known/openid-configuration")
@login.route("GET", "/{tenant}/.well-known/openid-configuration")
def openid_configuration(call: Call) -> Response:
    """Where to ask for tokens."""
    base = f"https://{LOGIN_HOST}/{call['tenant']}"
    return answer(
        {
            "issuer": f"{base}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
        }
    )


@login.route("POST", "/{tenant}/oauth2/v2.0/token")
@login.route("POST", "/{tenant}/oauth2/token")
def token(call: Call) -> Response:
    """A token for the service principal that knows its secret."""
    form = dict(parse_qsl(call.request.body.decode()))
    principal = call.workspace.identity.service_principal
    if form.get("grant_type") != "client_credentials":
        raise Refusal(400, "unsupported_grant_type", "AADSTS70003: The app requested an unsupported grant type.")
    if call["tenant"] != principal.tenant_id or form.get("client_id") != principal.client_id:
        raise Refusal(400, "unauthorized_client", "AADSTS700016: Application was not found in the directory.")
    if not hmac.compare_digest(form.get("client_secret", "").encode(), principal.secret.encode()):
        raise Refusal(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
    audience = form.get("resource") or form.get("scope", "").removesuffix("/.default")
    return answer(
        {
            "token_type": "Bearer",
            "expires_in": TOKEN_LIFETIME_S,
            "ext_expires_in": TOKEN_LIFETIME_S,
            "access_token": call.workspace.identity.issue("aad", audience),
        }
    )


@arm.route("GET", "/subscriptions")
def subscriptions(call: Call) -> Response:
    """The one subscription."""
    subscription = call.workspace.scope.subscription
    return answer(
        {
            "value": [
                {
                    "id": f"/subscriptions/{subscription}",
                    "subscriptionId": subscription,
                    "displayName": "Loopback",
                    "state": "Enabled",
                }
            ]
        }
    )


@arm.route("GET", "{scope}")
def arm_workspace(call: Call) -> Response:
    """The workspace, from the resource manager."""
    scope = call.workspace.scope
    document = {
        "id": scope.path,
        "name": scope.name,
        "type": "Microsoft.MachineLearningServices/workspaces",
        "location": scope.location,
        "sku": {"name": "Basic", "tier": "Basic"},
        "properties": {
            "workspaceId": scope.workspace_id,
            "discoveryUrl": f"https://{scope.location}.api.azureml.ms/discovery",
            "friendlyName": scope.name,
            "provisioningState": "Succeeded",
        },
    }
    return answer(document)


@discovery.route("GET", "/discovery")
@discovery.route("GET", "/discovery/workspaces/{workspace}")
def services(call: Call) -> Response:
    """Where each service is; this route asks for no token."""
    base = f"https://{call.workspace.scope.location}.api.azureml.ms"
    names = ("api", "history", "experimentation", "hyperdrive", "modelmanagement")
    return answer({**dict.fromkeys(names, base), "studio": "https://ml.azure.com"})
