"""The loopback AzureML server: what it refuses and reports, how it starts and stops, how it is used by hand."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from azureml_raw import SUBSCRIPTIONS, Raw
from azureml_server import serving
from azureml_server.fixtures import azureml as azureml

pytest_plugins = ["pytester"]


@pytest.fixture
def raw(azureml):
    return Raw(azureml)


@pytest.mark.parametrize("url", ["management.azure.com/tenants", "example.com/"])
def test_a_route_that_is_not_known_is_reported_and_nothing_is_forwarded(azureml, raw, url):
    assert raw("GET", url)[0] == 501
    assert azureml.unknown == [f"GET https://{url}"]
    azureml.unknown.clear()


def test_a_request_that_a_route_cannot_read_is_reported(azureml, raw):
    models = f"westeurope.api.azureml.ms/modelmanagement/v1.0{azureml.workspace.scope.path}/models"

    statuses = [raw("POST", models, body)[0] for body in (b"no json", b'["no object"]')]

    assert statuses == [400, 500]
    assert "AttributeError" in azureml.broken.pop()


def test_what_a_client_did_not_finish_to_send_does_not_happen(azureml):
    name = "ExperimentRun/dcid.train_1/outputs/a.txt"
    connection = Raw(azureml).connect("innereyetests.blob.core.windows.net")
    connection.putrequest("PUT", "/" + azureml.workspace.blobs.uri(name, "rcw").split("/", 3)[3])
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"only this much")

    connection.close()

    time.sleep(0.1)
    assert azureml.workspace.blobs.find(name) is None
    assert azureml.requests == []


def test_the_fixture_fails_a_test_that_asked_for_an_unknown_route(pytester):
    pytester.makepyfile(
        """
        from azureml_server.fixtures import azureml as azureml

        def test_passes(azureml):
            azureml.unknown.append("GET https://example.com/")
        """
    )

    result = pytester.runpytest_inprocess()

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*GET https://example.com/*"])


def test_the_server_starts_fast_and_leaves_nothing_behind():
    with serving():  # the first one makes the keys
        pass
    threads = threading.active_count()

    started = time.monotonic()
    with serving() as server:
        taken_s = time.monotonic() - started
        assert Raw(server)("GET", SUBSCRIPTIONS)[0] == 200

    assert taken_s < 0.3
    assert not server.home.exists()
    deadline = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= threads


def test_by_hand_the_command_prints_the_variables_and_serves(tmp_path):
    support = Path(__file__).parent / "support"
    process = subprocess.Popen(
        [sys.executable, "-m", "azureml_server", "--run", "HD_1", "--folds", "3", "--config", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(support)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        process.stderr.readline()  # wrote config.json
        serving_at = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=10)

    variables = dict(re.findall(r"^export (\w+)=(.*)$", stdout, re.MULTILINE))
    assert variables["HTTPS_PROXY"] in serving_at
    assert variables["AZUREML_RUN_ID"] == "HD_1_0"
    assert json.loads((tmp_path / "config.json").read_text())["workspace_name"] == "innereye"
    assert (process.returncode, stderr.strip()) == (0, "")
