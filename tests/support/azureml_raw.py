"""Plain HTTPS through the loopback AzureML server, without the SDK: a request takes a millisecond."""

from __future__ import annotations

import http.client
import ssl

from azureml_server import AzureMLServer

SUBSCRIPTIONS = "management.azure.com/subscriptions"


class Raw:
    """A client with a user's token, or another."""

    def __init__(self, server: AzureMLServer, token: str | None = None) -> None:
        self._context = ssl.create_default_context(cafile=str(server.authority.certificate))
        self._port = int(server.url.rpartition(":")[2])
        self._headers = {"Authorization": f"Bearer {token or server.token}"}

    def connect(self, host: str) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, context=self._context, timeout=10)
        connection.set_tunnel(host)
        return connection

    def __call__(self, method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
        host, _, path = url.partition("/")
        connection = self.connect(host)
        try:
            connection.request(method, f"/{path}", body, self._headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
