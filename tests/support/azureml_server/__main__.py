"""The server by hand: prints the variables that lead a shell's clients to it, and serves until Ctrl-C."""

from __future__ import annotations

import argparse
import shlex
import sys
import threading
from pathlib import Path

from azureml_server.server import AzureMLServer, serving


def main(arguments: list[str] | None = None) -> None:
    """Serve as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m azureml_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: any free port")
    parser.add_argument("--run", metavar="ID", help="a run; the variables make the shell's clients jobs of that run")
    parser.add_argument("--experiment", default="prostate", help="the run's experiment (default: %(default)s)")
    parser.add_argument("--folds", type=int, metavar="N", help="make the run a cross-validation; clients are fold 0")
    parser.add_argument("--config", type=Path, metavar="DIR", help="write the workspace's config.json into this folder")
    options = parser.parse_args(arguments)
    with serving(port=options.port) as server:
        server.workspace.on_submit = server.run_job_locally
        for name, value in _variables(server, options).items():
            sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
        if options.config is not None:
            sys.stderr.write(f"wrote {server.write_config(options.config)}\n")
        sys.stdout.flush()
        try:
            sys.stderr.write(f"serving at {server.url}; Ctrl-C ends\n")
            threading.Event().wait()
        except KeyboardInterrupt:
            sys.stderr.write("\n")
            for recorded in server.unknown:
                sys.stderr.write(f"unknown: {recorded}\n")


def _variables(server: AzureMLServer, options: argparse.Namespace) -> dict[str, str]:
    run = options.run
    if run is not None and options.folds is not None:
        _, children = server.workspace.add_hyperdrive(run, options.folds, experiment=options.experiment)
        run = children[0]
    elif run is not None:
        run = server.workspace.add_run(run, experiment=options.experiment)
    principal = server.workspace.identity.service_principal
    return server.client_environment(run) | {
        "AZUREML_SERVICE_PRINCIPAL_TENANT_ID": principal.tenant_id,
        "AZUREML_SERVICE_PRINCIPAL_ID": principal.client_id,
        "AZUREML_SERVICE_PRINCIPAL_PASSWORD": principal.secret,
        "INNEREYE_TEST_TOKEN": server.token,
    }


if __name__ == "__main__":
    main()
