"""The workspace that the server holds: what tests put into it, look into, and wait for."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from azureml_server.artifacts import Artifact, ArtifactStore
from azureml_server.blobs import BlobStore
from azureml_server.identity import Identity, Scope
from azureml_server.messages import Json, Refusal
from azureml_server.models import Model, ModelStore
from azureml_server.runs import Run

RUN_ORIGIN = "ExperimentRun"


@dataclass
class Job:
    """A run that a client submitted: its configuration, and the files of its snapshot by relative POSIX path."""

    run: Run
    configuration: Json
    files: dict[str, bytes]

    @property
    def script(self) -> str:
        """The script, relative to the snapshot."""
        return str(self.configuration["script"])

    @property
    def arguments(self) -> list[str]:
        """The script's arguments."""
        return [str(argument) for argument in self.configuration.get("arguments") or []]

    @property
    def environment(self) -> Json:
        """The environment's definition, as the client sent it."""
        environment: Json = self.configuration["environment"]
        return environment

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables for the script, from the environment and from the configuration itself."""
        both = (self.environment.get("environmentVariables"), self.configuration.get("environmentVariables"))
        return {name: str(value) for variables in both for name, value in (variables or {}).items()}


@dataclass
class Snapshot:
    """A folder of code: where the blob of each file is."""

    snapshot_id: str
    files: dict[str, str] = field(default_factory=dict)


class Workspace:
    """All state of the server. Methods may be called from any thread; routes hold `lock` while they run."""

    def __init__(self, scope: Scope | None = None) -> None:
        self.scope = scope or Scope()
        self.lock = threading.RLock()
        self.identity = Identity()
        self.blobs = BlobStore()
        self.artifacts = ArtifactStore(self.blobs)
        self.registry = ModelStore()
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, Run] = {}
        self.environments: dict[str, dict[str, Json]] = {}
        self.computes: dict[str, str] = {"gpu-cluster": "STANDARD_NC6S_V3"}
        self.snapshots: dict[str, Snapshot] = {}
        self.jobs: list[Job] = []
        self.on_submit: Callable[[Job], object] | None = None
        """Called in a thread of its own for each job that a client submits; None: jobs go from Queued to Running and to
        Completed as clients ask for their state."""
        self.page_size = 100
        """The longest page of a listing that has pages."""

    # Runs

    def experiment_id(self, name: str) -> str:
        """The id of the experiment, which is made where there is none."""
        with self.lock:
            return self.experiments.setdefault(name, str(uuid.uuid5(uuid.NAMESPACE_URL, name)))

    def add_run(
        self,
        run_id: str,
        *,
        experiment: str = "prostate",
        parent: Run | str | None = None,
        status: str = "Running",
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        run_type: str = "azureml.scriptrun",
        artifacts: Mapping[str, bytes] | None = None,
    ) -> Run:
        """A new run, with its artifacts by path.

        Raises:
            ValueError: There is a run of this id.
        """
        with self.lock:
            if run_id in self.runs:
                raise ValueError(f"There is a run {run_id!r} already")
            run = Run(
                run_id=run_id,
                experiment=experiment,
                experiment_id=self.experiment_id(experiment),
                number=len(self.runs) + 1,
                parent=self.run(parent) if isinstance(parent, str) else parent,
                status=status,
                tags=dict(tags or {}),
                properties=dict(properties or {}),
                run_type=run_type,
            )
            self.runs[run_id] = run
            for path, content in (artifacts or {}).items():
                self.add_artifact(run, path, content)
            return run

    def add_hyperdrive(
        self, run_id: str, folds: int, *, experiment: str = "prostate", tag: str = "cross_validation_split_index"
    ) -> tuple[Run, list[Run]]:
        """A cross-validation as Hyperdrive makes it: a parent, a preparation child without tag, a child per fold."""
        with self.lock:
            parent = self.add_run(run_id, experiment=experiment, run_type="hyperdrive")
            self.add_run(
                f"{run_id}_preparation",
                experiment=experiment,
                parent=parent,
                status="Completed",
                run_type="preparation",
            )
            children = [
                self.add_run(f"{run_id}_{fold}", experiment=experiment, parent=parent, tags={tag: str(fold)})
                for fold in range(folds)
            ]
            return parent, children

    def run(self, run_id: str) -> Run:
        """The run.

        Raises:
            Refusal: There is none (404).
        """
        with self.lock:
            if run_id not in self.runs:
                raise Refusal(404, "UserError", f"Run {run_id} was not found")
            return self.runs[run_id]

    def children(self, run: Run) -> list[Run]:
        """The run's children, newest first."""
        with self.lock:
            return [other for other in reversed(self.runs.values()) if other.parent is run]

    # Artifacts

    def add_artifact(self, run: Run | str, path: str, content: bytes) -> None:
        """Give the run an artifact."""
        with self.lock:
            run = self.run(run) if isinstance(run, str) else run
            self.artifacts.write(self.artifacts.create(RUN_ORIGIN, run.container, path), content)

    def run_artifacts(self, run: Run | str) -> dict[str, bytes | None]:
        """The run's artifacts by path; None for those whose bytes never came."""
        with self.lock:
            run = self.run(run) if isinstance(run, str) else run
            return self._contents(self.artifacts.listing(RUN_ORIGIN, run.container))

    # Models

    def models(self, name: str | None = None) -> list[Model]:
        """Registered models, newest first."""
        with self.lock:
            return [model for model in self.registry.models() if name in (None, model.name)]

    def model(self, model_id: str) -> Model:
        """The model ``Name:Version``.

        Raises:
            Refusal: There is none (404).
        """
        with self.lock:
            return self.registry.get(model_id)

    def model_files(self, model: Model | str) -> dict[str, bytes | None]:
        """What a download of the model brings: files by relative path; None for those whose bytes never came."""
        with self.lock:
            model = self.registry.get(model) if isinstance(model, str) else model
            files: dict[str, bytes | None] = {}
            for prefix in model.asset.prefixes:
                origin, container, path = prefix.split("/", 2)
                stripped = path.rpartition("/")[0] + "/" if "/" in path else ""
                contents = self._contents(self.artifacts.listing(origin, container, path))
                files |= {name.removeprefix(stripped): content for name, content in contents.items()}
            return files

    def _contents(self, artifacts: Iterable[Artifact]) -> dict[str, bytes | None]:
        return {artifact.path: self.artifacts.content(artifact) for artifact in artifacts}
