"""Runs a submitted job for real: its script, in a folder with its snapshot's files, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from azureml_server.clients import Clients
from azureml_server.runs import FINAL
from azureml_server.workspace import RUN_ORIGIN, Job, Workspace

LOG_FILE = "user_logs/std_log.txt"
UPLOADED_FOLDERS = ("outputs", "logs")


def run_job_locally(clients: Clients, workspace: Workspace, job: Job, python: str | Path = sys.executable) -> int:
    """Run the job's script and give its exit code.

    The script is a job like any other: it finds its run with ``Run.get_context()``. What it prints is the run's
    ``user_logs/std_log.txt`` line by line; what it leaves in ``outputs/`` and ``logs/`` become the run's artifacts. The
    run ends Completed, or Failed where the exit code is not 0; one that was cancelled in between stays so.
    """
    run = job.run
    with tempfile.TemporaryDirectory(prefix="azureml-job-") as folder:
        for path, content in job.files.items():
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        for name in UPLOADED_FOLDERS:
            Path(folder, name).mkdir(exist_ok=True)
        with workspace.lock:
            log = workspace.artifacts.create(RUN_ORIGIN, run.container, LOG_FILE)
            workspace.artifacts.write(log, b"")
            if run.status in FINAL:
                return 1
            run.set_status("Running")
        process = subprocess.Popen(
            [str(python), job.script, *job.arguments],
            env=clients.whole_environment(run, job.variables),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        run.on_cancel = process.terminate
        with clients.running(process):
            printed = b""
            assert process.stdout is not None  # stdout=PIPE
            for line in process.stdout:
                printed += line
                with workspace.lock:
                    workspace.artifacts.write(log, printed)
            exit_code = process.wait()
        with workspace.lock:
            for file in sorted(file for name in UPLOADED_FOLDERS for file in Path(folder, name).rglob("*")):
                relative = file.relative_to(folder).as_posix()
                # What the script uploaded itself is there already, and a second upload of a path conflicts.
                if file.is_file() and relative not in workspace.run_artifacts(run):
                    workspace.add_artifact(run, relative, file.read_bytes())
            if run.status not in FINAL:
                error = None if exit_code == 0 else f"User process exited with status code {exit_code}."
                run.set_status("Completed" if exit_code == 0 else "Failed", error)
        return exit_code
