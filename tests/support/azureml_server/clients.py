"""Clients in processes of their own: the environment variables that lead the SDK to the server, and how to run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from azureml_server.identity import TOKEN_LIFETIME_S
from azureml_server.runs import Run
from azureml_server.workspace import Workspace

FOREIGN_PREFIXES = ("AZUREML_", "AZURE_", "AML_", "MSI_", "IDENTITY_", "INNEREYE_")
CUT_WAITS = Path(__file__).with_name("cut_waits")


@dataclass(frozen=True)
class Outcome:
    """What a client did."""

    exit_code: int
    stdout: str
    stderr: str


class Clients:
    """Runs clients against one server."""

    def __init__(self, workspace: Workspace, proxy_url: str, ca: Path, folder: Path) -> None:
        self._workspace = workspace
        self._proxy_url = proxy_url
        self._ca = ca
        self._folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self._run_tokens: dict[str, str] = {}
        self._processes: set[subprocess.Popen[bytes]] = set()
        self.token = workspace.identity.issue("aad")
        """A user's token, for TokenAuthentication."""

    @contextmanager
    def running(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """`process` runs inside the ``with``; `kill_all` ends it."""
        self._processes.add(process)
        try:
            with process:
                yield
        finally:
            self._processes.discard(process)

    def kill_all(self) -> None:
        """End the jobs that still run."""
        for process in list(self._processes):
            process.kill()

    def run_token(self, run: Run | str) -> str:
        """The token that jobs of `run` find in their environment."""
        run_id = run if isinstance(run, str) else run.run_id
        return self._run_tokens.setdefault(run_id, self._workspace.identity.issue("run"))

    def config(self) -> dict[str, str]:
        """The content of a config.json."""
        scope = self._workspace.scope
        return {
            "subscription_id": scope.subscription,
            "resource_group": scope.resource_group,
            "workspace_name": scope.name,
        }

    def write_config(self, folder: Path) -> Path:
        """Write the workspace's config.json into `folder`."""
        path = folder / "config.json"
        path.write_text(json.dumps(self.config()))
        return path

    def client_environment(self, run: Run | str | None = None, *, cut_waits: bool = True) -> dict[str, str]:
        """Environment variables that add up to a client which can only reach this server.

        `run` makes the client a job of that run (its token is `run_token`); otherwise it is offline. With
        `cut_waits`, the SDK's waits between its retries and polls are cut to a moment (see `cut_waits/`).
        """
        environment = {
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), self._proxy_url),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
            "REQUESTS_CA_BUNDLE": str(self._ca),
            "SSL_CERT_FILE": str(self._ca),
            "CURL_CA_BUNDLE": str(self._ca),
            "HOME": str(self.home),
        }
        if cut_waits:
            inherited = os.environ.get("PYTHONPATH")
            environment["PYTHONPATH"] = os.pathsep.join([str(CUT_WAITS), *([inherited] if inherited else [])])
        if run is not None:
            environment |= self._job_environment(self._workspace.run(run) if isinstance(run, str) else run)
        return environment

    def _job_environment(self, run: Run) -> dict[str, str]:
        scope = self._workspace.scope
        base = f"https://{scope.location}.api.azureml.ms"
        return {
            "AZUREML_ARM_SUBSCRIPTION": scope.subscription,
            "AZUREML_ARM_RESOURCEGROUP": scope.resource_group,
            "AZUREML_ARM_WORKSPACE_NAME": scope.name,
            "AZUREML_ARM_PROJECT_NAME": run.experiment,
            "AZUREML_RUN_ID": run.run_id,
            "AZUREML_SERVICE_ENDPOINT": base,
            "AZUREML_DISCOVERY_SERVICE_ENDPOINT": f"{base}/discovery",
            "AZUREML_EXPERIMENT_ID": run.experiment_id,
            "AZUREML_WORKSPACE_ID": scope.workspace_id,
            "AZUREML_RUN_TOKEN": self.run_token(run),
            "AZUREML_RUN_TOKEN_EXPIRY": str(int(time.time()) + TOKEN_LIFETIME_S),
        }

    def whole_environment(
        self, run: Run | str | None = None, variables: Mapping[str, str] | None = None, *, cut_waits: bool = True
    ) -> dict[str, str]:
        """This process's environment without anything about Azure or a proxy, plus `client_environment`."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(FOREIGN_PREFIXES) and not name.lower().endswith("_proxy")
        }
        return kept | self.client_environment(run, cut_waits=cut_waits) | dict(variables or {})

    def python(
        self,
        code: str,
        *arguments: object,
        run: Run | str | None = None,
        cwd: Path | None = None,
        variables: Mapping[str, str] | None = None,
        timeout_s: float = 120,
        cut_waits: bool = True,
    ) -> Outcome:
        """Run Python code in a process of its own: as a job of `run`, or offline."""
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return self._run(command, self.whole_environment(run, variables, cut_waits=cut_waits), cwd, timeout_s)

    def innereye(
        self,
        *arguments: object,
        run: Run | str | None = None,
        cwd: Path | None = None,
        variables: Mapping[str, str] | None = None,
        timeout_s: float = 300,
        cut_waits: bool = True,
    ) -> Outcome:
        """Run ``innereye`` in a process of its own: as a job of `run`, or offline."""
        command = [sys.executable, "-m", "innereye_core", *map(str, arguments)]
        return self._run(command, self.whole_environment(run, variables, cut_waits=cut_waits), cwd, timeout_s)

    def _run(self, command: list[str], environment: Mapping[str, str], cwd: Path | None, timeout_s: float) -> Outcome:
        if cwd is None:
            cwd = self._folder / "cwd"
            cwd.mkdir(exist_ok=True)
        completed = subprocess.run(
            command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        return Outcome(completed.returncode, completed.stdout, completed.stderr)
