"""Runs SDK code in a process of its own against the loopback AzureML server, and gives what it shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from azureml_server import AzureMLServer, Outcome

PREAMBLE = """
import json, sys
from pathlib import Path
from azureml.core import Environment, Experiment, Model, Run, ScriptRunConfig, Workspace
from azureml.core.authentication import ServicePrincipalAuthentication, TokenAuthentication

def open_workspace(token):
    return Workspace.from_config("config.json", auth=TokenAuthentication(lambda audience: token, cloud="AzureCloud"))

def failure(action):
    try:
        action()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return None

def show(**values):
    print("\\n" + json.dumps(values))
"""


def client(server: AzureMLServer, folder: Path, code: str, *arguments: object, **options: Any) -> dict[str, Any]:
    """Run SDK code in a process, and give what it shows."""
    outcome = run_client(server, folder, code, *arguments, **options)
    assert outcome.exit_code == 0, outcome.stderr
    shown: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    return shown


def run_client(server: AzureMLServer, folder: Path, code: str, *arguments: object, **options: Any) -> Outcome:
    """Run SDK code in a process whose current folder has the workspace's config.json; its first argument is a token."""
    server.write_config(folder)
    return server.python(PREAMBLE + code, server.token, *arguments, cwd=folder, **options)


def write_model(folder: Path) -> dict[str, bytes]:
    """A folder final_model with the names and sizes that go wrong first; its files by path."""
    files = {
        "final_model/score.py": b"print('scores')\n",
        "final_model/InnerEye/__init__.py": b"",
        "final_model/checkpoints/Prüfung 50%25 (ü).pth": b"weights" * 100,
    }
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return files


REGISTER = """
workspace = open_workspace(sys.argv[1])
model = Model.register(workspace, "final_model", "Prostate", tags={"site": "A"}, properties={"epoch": 3},
                       description="x")
"""
