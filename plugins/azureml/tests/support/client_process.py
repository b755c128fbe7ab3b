"""A client of AzureML in a process of its own, which does what its parent writes to it: one JSON line in, one out.

The SDK takes seconds to import and reads its environment variables then, so many operations share one process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from innereye_azureml import sdk
from innereye_azureml.authentication import configured_authentication
from innereye_azureml.registry import AzureMLRegistry
from innereye_azureml.runs import AzureMLRuns
from innereye_core.errors import InnerEyeError
from innereye_core.manifest import open_package, verify
from innereye_core.model import RegisteredModel, Registration, Run
from innereye_core.progress import Silent

RUNS = AzureMLRuns()


class Recording(Silent):
    """Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.tasks: list[dict[str, Any]] = []

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        task: dict[str, Any] = {"description": description, "total": total, "done": 0}
        self.tasks.append(task)

        def advance(steps: int) -> None:
            task["done"] += steps

        yield advance


# --- what the parent may ask for --------------------------------------------------------------------------------------


def environment(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def login() -> list[Any]:
    made = sdk._sdk_authentication(configured_authentication())
    return [type(made).__name__, made._identity_config]


def register(
    folder: str,
    name: str = "Prostate",
    tags: dict[str, str] | None = None,
    properties: dict[str, str] | None = None,
    description: str = "Epoch 3.",
    of: str | None = None,
    place: str | None = None,
) -> dict[str, Any]:
    package = open_package(Path(folder))
    run = RUNS.current()
    if of == "parent" and run is not None:
        run = RUNS.parent(run)
    properties = {"package_digest": package.digest, **(properties or {})}
    registration = Registration(name, tags or {}, properties, description, run if of else None)
    progress = Recording()
    model = _registry(place).register(package, registration, progress)
    return {**_model(model), "progress": progress.tasks}


def models(place: str | None = None) -> list[dict[str, Any]]:
    return [_model(model) for model in _registry(place).models()]


def get(name: str = "Prostate", version: int | None = None, place: str | None = None) -> dict[str, Any]:
    return _model(_registry(place).get(name, version))


def fetch(folder: str, name: str = "Prostate", version: int | None = None) -> list[dict[str, Any]]:
    registry, progress = _registry(None), Recording()
    Path(folder).mkdir()
    registry.fetch(registry.get(name, version), Path(folder), progress)
    assert verify(open_package(Path(folder))) == ()
    return progress.tasks


def tag(tags: dict[str, str], name: str = "Prostate", version: int | None = None) -> dict[str, Any]:
    registry = _registry(None)
    return _model(registry.tag(registry.get(name, version), tags))


def delete(name: str, version: int) -> None:
    registry = _registry(None)
    registry.delete(registry.get(name, version))


def delete_missing(name: str, version: int) -> None:
    _registry(None).delete(RegisteredModel(name, version, "azureml", "final_model", "", {}, {}, ""))


def current() -> dict[str, Any] | None:
    return _run(RUNS.current())


def open_run(reference: str) -> dict[str, Any] | None:
    return _run(RUNS.open(reference))


def children() -> list[dict[str, Any] | None]:
    run = RUNS.current()
    assert run is not None
    return [_run(child) for child in RUNS.children(run)]


def add_tags(tags: dict[str, str], of: str = "run") -> dict[str, Any] | None:
    run = RUNS.current()
    assert run is not None
    parent = RUNS.parent(run)
    return _run(RUNS.add_tags(parent if of == "parent" and parent is not None else run, tags))


def parent() -> dict[str, Any] | None:
    run = RUNS.current()
    assert run is not None
    return _run(RUNS.parent(run))


def folds() -> list[dict[str, Any]]:
    run = RUNS.current()
    assert run is not None
    parent = RUNS.parent(run)
    assert parent is not None
    return [dataclasses.asdict(fold) for fold in RUNS.folds(parent)]


def register_ensemble_once(folder: str, go_on: str | None = None) -> dict[str, Any]:
    """What core does: take the right, look whether there is an ensemble, and register one where there is none.

    Where ``go_on`` names a file, wait for it between looking and registering.
    """
    run = RUNS.current()
    assert run is not None
    parent = RUNS.parent(run)
    assert parent is not None
    with RUNS.exclusively(parent):
        made = [model for model in models() if model["properties"].get("run_id") == parent.id]
        if made:
            return {**made[0], "made": False}
        if go_on is not None:
            Path(go_on).with_suffix(".waiting").touch()
            while not Path(go_on).exists():
                threading.Event().wait(0.01)
        return {**register(folder, of="parent", properties={"run_id": parent.id}), "made": True}


# --- how --------------------------------------------------------------------------------------------------------------


def _registry(place: str | None) -> AzureMLRegistry:
    return AzureMLRegistry() if place is None else AzureMLRegistry().at(place)


def _model(model: RegisteredModel) -> dict[str, Any]:
    return {"id": model.id, **dataclasses.asdict(model)}


def _run(run: Run | None) -> dict[str, Any] | None:
    return None if run is None else dataclasses.asdict(run)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any]
        try:
            answer = {"result": globals()[request.pop("call")](**request)}
        except InnerEyeError as error:
            answer = {"error": str(error), "exit_code": error.exit_code, "traceback": traceback.format_exc()}
        except Exception as error:
            answer = {"error": repr(error), "exit_code": 1, "traceback": traceback.format_exc()}
        print(json.dumps(answer, default=str), file=answers, flush=True)


if __name__ == "__main__":
    main()
