"""The pytest fixture `azureml`: a server for one test, which fails the test on any route that it does not know."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from azureml_server.server import AzureMLServer, serving


@pytest.fixture
def azureml() -> Iterator[AzureMLServer]:
    """A server with an empty workspace. Requests that no route knows fail the test when it ends, each named.

    A test that means to make one takes it out of ``azureml.unknown``.
    """
    with serving() as server:
        yield server
    if server.unknown or server.broken:
        requests = "\n".join([*server.unknown, *server.broken])
        pytest.fail(
            f"The SDK asked for what the test server has no route for, or failed on:\n{requests}", pytrace=False
        )
