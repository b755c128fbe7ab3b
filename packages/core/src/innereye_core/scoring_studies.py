"""Scores many studies with one model: each result appears whole, what is done is kept, a bad study stops no other."""

from __future__ import annotations

import csv
import io
import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from innereye_core.config import as_plain
from innereye_core.config_files import read_json_object
from innereye_core.digests import sha256_of_file
from innereye_core.errors import InputError, IntegrityError, RegistryError
from innereye_core.host import Host, installed_host
from innereye_core.progress import Silent
from innereye_core.publishing import (
    TargetExistsError,
    make_folder,
    publish,
    staged_folder,
    storage_errors,
    write_file_atomically,
)
from innereye_core.registered_models import LoadedModel, load_model
from innereye_core.scoring import score
from innereye_core.studies import StudyFiles, find_studies

if TYPE_CHECKING:
    from innereye_core.contract.providers import Progress
    from innereye_core.model import ScoreResult

_log = logging.getLogger(__name__)

RESULT_FILE = "result.json"
"""Written into the folder of each study's results: what they were made from."""
SUMMARY_FILE = "summary.csv"
DEFAULT_JOBS = "1"

_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class StudyOutcome:
    """What became of one study."""

    study: str
    status: str
    """scored; kept, where an earlier result was made from the same model and files; failed."""
    error: str | None = None
    seconds: float = 0.0
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    """Structure → volume."""
    review: tuple[str, ...] = ()
    """What somebody should look at, one line each."""


@dataclass(frozen=True)
class StudyTask:
    """Scores any of the studies. It travels to other processes and machines, which load the model once each."""

    model: str
    """Package folder, or model id."""
    registry: str | None
    model_digest: str
    output_folder: Path
    outputs: Mapping[str, str | tuple[str, ...]]
    """Argument of :func:`innereye_core.scoring.score` → name of the file in the study's folder."""
    device: str = "auto"
    runtime: str = "auto"
    precision: str = "fp32"
    resume: bool = False
    overwrite: bool = False

    def __call__(self, study: StudyFiles, progress: Progress | None = None) -> StudyOutcome:
        """Score one study, unless that was done.

        Raises:
            InnerEyeError: not the study is at fault: a plugin or the model is missing, the disk is full.
        """
        started = time.perf_counter()
        try:
            if study.problem is not None:
                raise InputError(study.problem)
            made_from = self._made_from(study)
            target = self.output_folder / study.name
            earlier = _earlier(target) if self.resume else None
            if earlier is not None and earlier["made_from"] == made_from:
                return _outcome(study, "kept", earlier, 0.0)
            loaded, host = _loaded(self.model, self.registry, self.model_digest)
            with staged_folder(target) as staged:
                result = self._score(study, staged, loaded, host, progress)
                record = _record(study, made_from, result, staged)
                content = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
                with storage_errors(str(target)):
                    (staged / RESULT_FILE).write_text(content, encoding="utf-8")
                self._publish(staged, target, made_from)
            return _outcome(study, "scored", record, time.perf_counter() - started)
        except (InputError, IntegrityError) as error:
            return StudyOutcome(study.name, "failed", str(error), time.perf_counter() - started)

    def _publish(self, staged: Path, target: Path, made_from: Mapping[str, Any]) -> None:
        try:
            publish(staged, target, replace=self.overwrite or self.resume)
        except TargetExistsError:
            # A worker that was killed just after it had published: its work was given to us, too.
            earlier = _earlier(target)
            if earlier is None or earlier["made_from"] != made_from:
                raise

    def _made_from(self, study: StudyFiles) -> dict[str, Any]:
        """What the results depend on: equal values, equal results."""
        files = [*study.images, *(() if study.mask is None else (study.mask,))]
        return {
            "model_digest": self.model_digest,
            "inputs": [sha256_of_file(path) for path in files],
            "mask": study.mask is not None,
            "outputs": as_plain(dict(self.outputs)),
            "device": self.device,
            "runtime": self.runtime,
            "precision": self.precision,
        }

    def _score(
        self, study: StudyFiles, folder: Path, loaded: LoadedModel, host: Host, progress: Progress | None
    ) -> ScoreResult:
        places = {
            argument: f"{folder}/{names}" if isinstance(names, str) else tuple(folder / name for name in names)
            for argument, names in self.outputs.items()
        }
        arguments: dict[str, Any] = {
            **places,
            "device": self.device,
            "runtime": self.runtime,
            "precision": self.precision,
        }
        if study.mask is not None:
            arguments["mask"] = study.mask
        return score(loaded, study.images, host=host, progress=progress, **arguments)


_models: dict[str, tuple[LoadedModel, Host]] = {}
"""Models that this process has loaded, by digest."""

_loading = threading.Lock()


def _loaded(model: str, registry: str | None, digest: str) -> tuple[LoadedModel, Host]:
    """The model, loaded once per process.

    Raises:
        RegistryError: it is not the model that the work began with.
    """
    with _loading:
        if digest not in _models:
            host = installed_host()
            loaded = load_model(model, registry, host=host)
            if loaded.package.digest != digest:
                raise RegistryError(
                    f"{model}: is {loaded.package.digest} here, but {digest} where the work was given out"
                )
            _models[digest] = loaded, host
        return _models[digest]


# --- what is kept -----------------------------------------------------------------------------------------------------


def _record(study: StudyFiles, made_from: Mapping[str, Any], result: ScoreResult, folder: Path) -> dict[str, Any]:
    return {
        "schema_version": _SCHEMA_VERSION,
        "study": study.name,
        "model": result.model,
        "runtime": result.runtime,
        "made_from": made_from,
        "files": {
            path.relative_to(folder).as_posix(): sha256_of_file(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
        "structures": as_plain(result.structures),
        "checks": as_plain(result.checks),
        "review": as_plain(result.review),
    }


def _earlier(folder: Path) -> dict[str, Any] | None:
    """The record of an earlier result, if all of its files are as they were written."""
    try:
        record = read_json_object(folder / RESULT_FILE)
        whole = all(sha256_of_file(folder / name) == digest for name, digest in record["files"].items())
        return record if whole and record["schema_version"] == _SCHEMA_VERSION and "made_from" in record else None
    except (InputError, OSError, KeyError, AttributeError):
        return None


def _outcome(study: StudyFiles, status: str, record: Mapping[str, Any], seconds: float) -> StudyOutcome:
    volumes = {name: float(found["volume_ml"]) for name, found in record["structures"].items()}
    return StudyOutcome(study.name, status, None, seconds, volumes, tuple(record["review"]))


# --- all of them ------------------------------------------------------------------------------------------------------


def score_studies(
    model: str,
    studies: Path,
    output_folder: Path,
    outputs: Mapping[str, str | tuple[str, ...]],
    *,
    jobs: str = DEFAULT_JOBS,
    device: str = "auto",
    runtime: str = "auto",
    precision: str = "fp32",
    resume: bool = False,
    overwrite: bool = False,
    registry: str | None = None,
    host: Host | None = None,
    progress: Progress | None = None,
) -> tuple[StudyOutcome, ...]:
    """Score every study in a folder or CSV file, and write ``summary.csv``.

    Each study's results appear at once as ``output_folder/STUDY/``, with a ``result.json`` that names what they were
    made from.

    Args:
        model: a package folder, or a model id.
        studies: see :func:`innereye_core.studies.find_studies`.
        output_folder: made if missing.
        outputs: argument of :func:`innereye_core.scoring.score` → name of the file in the study's folder.
        jobs: what an executor accepts: a number of processes; ``dask``, or the address of a scheduler.
        device: ``auto``, ``cpu`` or ``cuda``.
        runtime: name of the runtime, or ``auto``.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        resume: keep results that were made from the same model and files with the same options; make the others.
        overwrite: replace existing results.
        registry: where model ids are looked up.
        host: what the plugins offer here; other processes use those that are installed.
        progress: where to say how many studies are done.

    Returns:
        One outcome per study, by name.

    Raises:
        InputError: there are no studies, or results exist that may not be replaced.
        InnerEyeError: something that concerns all studies.
    """
    host = host or installed_host()
    host.scorer()
    executor = host.executor(jobs)
    loaded = load_model(model, registry, host=host, progress=progress)
    suffixes = {suffix for format in host.image_formats() for suffix in format.suffixes}
    found = find_studies(studies, loaded.files.config.image_channels, suffixes)
    if any(study.name.casefold() == SUMMARY_FILE for study in found):
        raise InputError(f"{studies}: a study cannot be called {SUMMARY_FILE}, the name of the table; rename it")
    if not (resume or overwrite):
        _refuse_existing(output_folder, found)
    with storage_errors(str(output_folder)):
        make_folder(output_folder)
    task = StudyTask(
        model=str(loaded.package.folder) if loaded.id is None else loaded.id,
        registry=registry,
        model_digest=loaded.package.digest,
        output_folder=output_folder.resolve(),
        outputs=dict(outputs),
        device=device,
        runtime=runtime,
        precision=precision,
        resume=resume,
        overwrite=overwrite,
    )
    outcomes: list[StudyOutcome] = []
    _models[loaded.package.digest] = loaded, host
    try:
        with (progress or Silent()).track("studies", len(found)) as done:
            for outcome in executor.run(task, found, jobs):
                outcomes.append(outcome)
                if outcome.error is not None:
                    _log.warning("study %s: %s", outcome.study, outcome.error)
                done(1)
    finally:
        del _models[loaded.package.digest]
        outcomes.sort(key=lambda outcome: outcome.study)
        _write_summary(output_folder, outcomes, loaded.files.config.structure_names)
    return tuple(outcomes)


def _refuse_existing(folder: Path, studies: Sequence[StudyFiles]) -> None:
    there = [study.name for study in studies if (folder / study.name).exists()]
    if there:
        raise InputError(
            f"{folder / there[0]} exists already ({len(there)} of {len(studies)} studies); keep what is done with "
            "--resume, replace it with --overwrite, or choose another --output-dir"
        )


def _write_summary(folder: Path, outcomes: Sequence[StudyOutcome], structures: Sequence[str]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["study", "status", "error", "review", *(f"{name}_ml" for name in structures)])
    for outcome in outcomes:
        volumes = ["" if name not in outcome.volumes_ml else f"{outcome.volumes_ml[name]:.3f}" for name in structures]
        writer.writerow([outcome.study, outcome.status, outcome.error or "", "; ".join(outcome.review), *volumes])
    with storage_errors(str(folder / SUMMARY_FILE)):
        write_file_atomically(folder / SUMMARY_FILE, text.getvalue().encode())
