"""Clients of AzureML in processes of their own, and packages for them to register."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from innereye_core.manifest import write_manifest
from innereye_core.model import Manifest, MemberRecord, Package, PackagedCheckpoint, PackageKind, RunRecord

_PROCESS = Path(__file__).with_name("client_process.py")


class Refused(Exception):
    """What a client was asked to do ended in an error; ``traceback`` is what ``--debug`` would print."""

    def __init__(self, message: str, exit_code: int, traceback: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.traceback = traceback


class Client:
    """A process that does what it is asked to; see client_process.py."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(_PROCESS)],
            env=environment,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "stderr.txt").open("w"),
            text=True,
        )

    def begin(self, call: str, **arguments: object) -> None:
        """Ask for something and do not wait."""
        assert self._process.stdin is not None
        print(json.dumps({"call": call, **arguments}, default=str), file=self._process.stdin, flush=True)

    def end(self) -> Any:
        """What came of the oldest :meth:`begin`."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.stderr
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"], answer["exit_code"], answer["traceback"])
        return answer["result"]

    def __call__(self, call: str, **arguments: object) -> Any:
        self.begin(call, **arguments)
        return self.end()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr.txt").read_text()

    def close(self) -> None:
        """End the process when it has nothing to do, or else kill it."""
        try:
            self._process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


FILES = {
    "score.py": b"print('scores')\n",
    "environment.yml": b"name: prostate\n",
    "InnerEye/ML/__init__.py": b"",
    "InnerEye/Common/Pr\u00fcfung 50%25 #1 (\u00fc).txt": b"odd\n",
    "checkpoints/3_checkpoint.pth.tar": b"weights" * 1000,
}


def write_package(folder: Path, kind: PackageKind = "final_model", files: dict[str, bytes] = FILES) -> Package:
    """A package with names and sizes that go wrong first."""
    for path, content in files.items():
        target = folder / kind / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    run = RunRecord("run_1", "run", "local")
    checkpoint = PackagedCheckpoint("3_checkpoint.pth.tar", "0" * 64, 7000, 3, ("optimizer",))
    member = MemberRecord(next(iter(files)), "run_1", None, 3, 5, "best_validation_dice", 0.9, checkpoint)
    draft = Manifest(kind, "Prostate", "2026-11-22T12:00:00+00:00", (), (), {"python": "3.11"}, run, (member,))
    return write_manifest(folder / kind, draft, {})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
