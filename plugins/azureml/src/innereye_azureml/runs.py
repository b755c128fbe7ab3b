"""The run source ``azureml``: the run that this process is the job of, its parent, and the folds beside it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from innereye_azureml import leases, sdk
from innereye_azureml.job import current_job
from innereye_azureml.limits import check_labels
from innereye_azureml.sdk import RunDetails, RunState
from innereye_core.builtin.runs import LocalRuns
from innereye_core.folds import FOLDS_PROPERTY
from innereye_core.model import FoldRun, Run

_log = logging.getLogger(__name__)

FOLD_TAG = "cross_validation_split_index"
"""Tag, or argument of the script, that makes a run with a parent one of its folds."""

_SYSTEM_TAGS = "_aml_system_"

_DATASET_ARGUMENT = "azure_dataset_id"
_COMMIT_PROPERTY = "azureml.git.commit"
_COMMIT_TAG = "source_id"


class AzureMLRuns:
    """Runs of AzureML, from inside their jobs; their files are where the job finds them."""

    name = "azureml"
    registry = "azureml"

    def __init__(self) -> None:
        self._details: dict[str, RunDetails] = {}

    def current(self) -> Run | None:
        """The run that this process is the job of, as it is now; None outside jobs.

        Raises:
            RegistryError: it cannot be fetched.
            MissingPluginError: azureml-core cannot be imported.
        """
        job = current_job()
        if job is None:
            return None
        return self._run(sdk.fetch_run(_experiment(), job.run_id), Path.cwd())

    def open(self, reference: str) -> Run | None:
        """Inside a job, the job's run with ``reference`` as its folder; None outside, or where there is no folder.

        Raises:
            RegistryError: the run cannot be fetched.
        """
        folder = Path(reference).resolve()
        if current_job() is None or not folder.is_dir():
            return None
        run = self.current()
        return None if run is None else dataclasses.replace(run, folder=folder)

    def children(self, run: Run) -> Sequence[Run]:
        """Folders 0, 1, … below the run's, where one job trained all folds: runs of the local source."""
        return LocalRuns().children(run)

    def add_tags(self, run: Run, tags: Mapping[str, str]) -> Run:
        """Add or replace tags of a run, which may be the parent.

        Raises:
            UsageError: a tag is not acceptable.
            RegistryError: there is no such run, or AzureML refuses.
        """
        check_labels("tag", tags)
        return dataclasses.replace(run, tags=_tags(sdk.add_tags(_experiment(), run.id, tags)))

    def parent(self, run: Run) -> Run | None:
        """The run that ``run`` is a fold of, with the fold's own folder; None where it is no fold.

        Where the parent does not say how many folds there are, the fold's own arguments do.

        Raises:
            RegistryError: it cannot be fetched.
        """
        if run.parent is None or run.fold is None:
            return None
        parent = sdk.fetch_run(_experiment(), run.parent)
        known = {key: value for key in _SHARED_PROPERTIES if (value := run.properties.get(key))}
        count = _argument(self._details_of(run.id), FOLDS_PROPERTY)
        if count is not None and FOLDS_PROPERTY not in parent.tags:
            known[FOLDS_PROPERTY] = count
        opened = self._run(parent, run.folder)
        return dataclasses.replace(opened, fold=None, properties={**known, **opened.properties})

    def folds(self, parent: Run) -> Sequence[FoldRun]:
        """Every fold of a parent run as it is now; an index that was restarted is there twice.

        A fold that waits for its machine has no tag yet, only its arguments. What has neither is no fold, such as the
        preparation that Hyperdrive begins with.

        Raises:
            RegistryError: they cannot be fetched.
        """
        found = [(self._fold_of(child), child) for child in sdk.fetch_children(_experiment(), parent.id)]
        folds = [FoldRun(child.id, index, child.status, child.tags.get("model_id")) for index, child in found if index]
        return sorted(folds, key=lambda fold: int(fold.fold))

    def exclusively(self, parent: Run) -> AbstractContextManager[None]:
        """Hold the right to register the parent's ensemble; see :mod:`innereye_azureml.leases`.

        Raises:
            UsageError: the environment variable for the time is no number.
            RegistryError: it cannot be had, or was lost.
        """
        return leases.held(_experiment(), parent.id)

    def _run(self, state: RunState, folder: Path) -> Run:
        details = self._details_of(state.id)
        return Run(
            id=state.id,
            name=state.name,
            folder=folder,
            source=self.name,
            status=state.status,
            tags=_tags(state),
            properties={**state.properties, **_origin(state, details)},
            parent=state.parent,
            fold=None if state.parent is None else self._fold_of(state),
        )

    def _fold_of(self, child: RunState) -> str | None:
        """The index of a fold: its tag, or else the argument that it was started with."""
        stated = child.tags.get(FOLD_TAG)
        if stated is None:
            stated = _argument(self._details_of(child.id), FOLD_TAG)
        # InnerEye gives -1 to runs that are no folds.
        return str(int(stated)) if stated is not None and stated.isascii() and stated.isdigit() else None

    def _details_of(self, run_id: str) -> RunDetails:
        if run_id not in self._details:
            self._details[run_id] = sdk.fetch_details(_experiment(), run_id)
        return self._details[run_id]


_SHARED_PROPERTIES = ("experiment", "dataset", "source_commit")


def _origin(state: RunState, details: RunDetails) -> dict[str, str]:
    """What models say about where they are from: experiment, dataset and source commit, as far as they are known."""
    origin = {
        "experiment": state.experiment,
        "dataset": ",".join(details.datasets) or _argument(details, _DATASET_ARGUMENT),
        "source_commit": state.properties.get(_COMMIT_PROPERTY) or state.tags.get(_COMMIT_TAG),
    }
    return {key: value for key, value in origin.items() if value}


def _argument(details: RunDetails, name: str) -> str | None:
    """The value of ``--name value`` or ``--name=value``; of the last one, as argparse would have it."""
    option = f"--{name}"
    found = None
    for position, argument in enumerate(details.arguments):
        if argument == option:
            found = next(iter(details.arguments[position + 1 :]), None)
        elif argument.startswith(f"{option}="):
            found = argument.removeprefix(f"{option}=")
    return found


def _tags(state: RunState) -> dict[str, str]:
    """A run's tags, without those that AzureML keeps for itself, and without what processes tell each other there."""
    return {key: value for key, value in state.tags.items() if key != leases.TAG and not key.startswith(_SYSTEM_TAGS)}


def _experiment() -> Any:
    """The ``azureml.core.Experiment`` of the job's run, to which its parent and siblings belong."""
    return sdk.submitted_run().experiment
