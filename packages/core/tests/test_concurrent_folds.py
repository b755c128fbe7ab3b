"""Folds that are runs of their own at the same time: each deploys itself, fold 0 waits and makes the ensemble once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from innereye_core import PackageOptions, deploy
from innereye_core.builtin.local_registry import LocalRegistry
from innereye_core.deployment import Deployment
from innereye_core.errors import InnerEyeError, InputError
from innereye_core.host import Host
from innereye_core.manifest import open_package, verify

FARM = """
    import contextlib, dataclasses, json, os
    from pathlib import Path
    from filelock import FileLock
    from innereye_core import hookimpl
    from innereye_core.model import FoldRun, Run

    FARM = Path(os.environ["FARM"])

    class Farm:
        '''Runs as JSON files of one folder, as a service would keep them.'''
        name = "farm"
        registry = "local"

        def _run(self, id, folder):
            entry = json.loads((FARM / f"{id}.json").read_text())
            return Run(id, id, folder, self.name, entry["status"], entry["tags"], entry.get("properties", {}),
                       entry.get("parent"), entry["tags"].get("cross_validation_split_index"))

        def current(self):
            id = os.environ.get("FARM_RUN")
            return None if id is None else self._run(id, Path.cwd())

        def open(self, reference):
            # Several folds run in this process, each in the folder that has its name.
            folder = Path(reference)
            return self._run(folder.name, folder) if (FARM / f"{folder.name}.json").is_file() else None

        def children(self, run):
            return []

        def add_tags(self, run, tags):
            path = FARM / f"{run.id}.json"
            with FileLock(FARM / "lock"):
                entry = json.loads(path.read_text())
                entry["tags"] |= tags
                path.write_text(json.dumps(entry))
            return self._run(run.id, run.folder)

        def parent(self, run):
            return None if run.parent is None or run.fold is None else self._run(run.parent, run.folder)

        def folds(self, parent):
            found = []
            for path in sorted(FARM.glob("*.json")):
                with FileLock(FARM / "lock"):
                    entry = json.loads(path.read_text())
                if entry.get("parent") == parent.id:
                    tags = entry["tags"]
                    found.append(FoldRun(path.stem, tags["cross_validation_split_index"], entry["status"],
                                         tags.get("model_id")))
            return found

        @contextlib.contextmanager
        def exclusively(self, parent):
            with FileLock(FARM / f"{parent.id}.ensemble"):
                yield

    @hookimpl
    def innereye_run_sources():
        return [Farm]
"""


class Service:
    """The farm as its administrator sees it."""

    def __init__(self, folder: Path, runs: Path, write_run: Callable[..., Path]) -> None:
        self.folder, self.runs, self._write_run = folder, runs, write_run
        self.put("cv", status="Running", tags={"site": "Basel"})

    def put(self, run: str, **entry: Any) -> None:
        path = self.folder / f"{run}.json"
        before = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({"tags": {}, **before, **entry}))

    def tags(self, run: str) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.folder / f"{run}.json").read_text())["tags"]
        return found

    def fold(self, number: int, name: str | None = None, status: str = "Running") -> Path:
        """A fold that has been trained, and waits to be deployed."""
        name = name or f"cv_{number}"
        self.put(name, status=status, tags={"cross_validation_split_index": str(number)}, parent="cv")
        return self._write_run(self.runs / name, {1: 0.5, number + 1: 0.9})

    def complete(self, number: int) -> Path:
        """A fold that was trained, deployed, and has completed."""
        folder = self.fold(number)
        deployment(folder)
        self.put(f"cv_{number}", status="Completed")
        return folder


def deployment(folder: Path, timeout: float = 0.0, **options: Any) -> Deployment:
    return deploy(folder, host=Host(), ensemble_timeout_seconds=timeout, **options)


@pytest.fixture
def service(
    toy: Path,
    registry: Path,
    tmp_path: Path,
    install: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    new_run: Callable[..., Path],
) -> Service:
    (tmp_path / "farm").mkdir()
    monkeypatch.setenv("FARM", str(tmp_path / "farm"))
    install("farm", FARM)
    return Service(tmp_path / "farm", tmp_path / "runs", new_run)


# --- the ensemble -----------------------------------------------------------------------------------------------------


def test_fold_0_registers_its_own_model_and_the_ensemble_on_the_parent(service: Service) -> None:
    service.complete(1)
    service.complete(2)
    done = deployment(service.fold(0))
    assert done.model.id == "Toy:3"
    assert done.ensemble is not None
    assert done.ensemble.id == "Toy:4"
    assert service.tags("cv_0")["model_id"] == "Toy:3"
    assert service.tags("cv")["model_id"] == "Toy:4"


def test_each_says_whether_it_is_an_ensemble_and_of_what_run(service: Service) -> None:
    service.complete(1)
    done = deployment(service.fold(0))
    assert done.ensemble is not None
    assert done.model.tags == {
        "is_ensemble": "False",
        "parent_run_id": "cv",
        "cross_validation_split_index": "0",
    }
    assert done.ensemble.tags == {"site": "Basel", "is_ensemble": "True"}
    assert done.ensemble.properties["run_id"] == "cv"


def test_ensemble_holds_what_the_folds_packaged_and_where_it_came_from(service: Service) -> None:
    one = open_package(service.complete(1) / "final_model")
    zero = service.fold(0)
    done = deployment(zero)
    ensemble = open_package(zero / "final_ensemble_model")
    assert verify(ensemble) == ()
    members = ensemble.manifest.members
    assert [(member.run, member.fold, member.epoch) for member in members] == [("cv_0", "0", 1), ("cv_1", "1", 2)]
    assert [member.checkpoint for member in members] == [
        done.package.manifest.members[0].checkpoint,
        one.manifest.members[0].checkpoint,
    ]
    packaged = (one.folder / "checkpoints" / "2_checkpoint.pth.tar").read_bytes()
    assert (ensemble.folder / "checkpoints" / "1" / "2_checkpoint.pth.tar").read_bytes() == packaged


def test_ensemble_has_the_validation_tables_of_all_folds(service: Service) -> None:
    one = service.complete(1)
    zero = service.fold(0)
    deployment(zero)
    table = json.loads((zero / "final_ensemble_model" / "validation.json").read_text())
    own = json.loads((one / "final_model" / "validation.json").read_text())
    assert table["folds"]["1"]["candidates"] == own["candidates"]


def test_other_folds_make_no_ensemble(service: Service) -> None:
    assert deployment(service.fold(1)).ensemble is None


def test_run_with_a_parent_and_no_index_is_a_plain_child(service: Service) -> None:
    folder = service.fold(0)
    service.put("cv_0", tags={}, status="Running")
    done = deployment(folder)
    assert done.ensemble is None
    assert done.model.tags == {"is_ensemble": "False", "parent_run_id": "cv"}


def test_folder_for_the_packages_holds_both(service: Service, tmp_path: Path) -> None:
    service.complete(1)
    deployment(service.fold(0), output=tmp_path / "packages")
    assert sorted(path.name for path in (tmp_path / "packages").iterdir()) == ["final_ensemble_model", "final_model"]


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_waits_for_folds_that_are_still_running(service: Service) -> None:
    others = [service.fold(number) for number in (1, 2)]

    def finish() -> None:
        for folder in reversed(others):
            deployment(folder)
            service.put(folder.name, status="Completed")

    thread = threading.Timer(0.2, finish)
    thread.start()
    done = deployment(service.fold(0), timeout=60)
    thread.join()
    assert done.ensemble is not None
    assert done.ensemble.properties["epoch"] == "1,2,3"


def test_fold_that_is_never_ready_ends_the_wait_in_time(service: Service) -> None:
    service.fold(1)
    with pytest.raises(InputError, match=r"Toy:1 is registered, but not the ensemble of run cv: .*fold 1 is Running"):
        deployment(service.fold(0), timeout=0.1)
    assert "model_id" not in service.tags("cv")


@pytest.mark.parametrize("status", ["Failed", "Canceled"])
def test_fold_that_failed_ends_the_wait_at_once(service: Service, status: str) -> None:
    service.complete(1)
    service.fold(2)
    service.fold(3, status=status)
    with pytest.raises(InputError, match=f"fold 3 is {status}; finish it, or pass --allow-missing-folds"):
        deployment(service.fold(0), timeout=3600)


def test_missing_folds_are_left_out_where_that_is_allowed(service: Service) -> None:
    service.complete(1)
    service.fold(2, status="Failed")
    service.fold(3)
    done = deployment(service.fold(0), timeout=0.1, allow_missing_folds=True)
    assert done.ensemble is not None
    assert done.ensemble.properties["epoch"] == "1,2"


def test_ensemble_of_one_is_refused(service: Service) -> None:
    service.fold(1, status="Failed")
    with pytest.raises(InputError, match="at least two folds, and there is 1"):
        deployment(service.fold(0), timeout=3600, allow_missing_folds=True)


def test_fold_that_completed_without_a_model_is_missing(service: Service) -> None:
    service.fold(1, status="Completed")
    with pytest.raises(InputError, match="fold 1 has deployed no model"):
        deployment(service.fold(0), timeout=3600)


def test_number_of_folds_that_the_parent_states_counts(service: Service) -> None:
    service.put("cv", properties={"number_of_cross_validation_splits": "3"})
    service.complete(1)
    with pytest.raises(InputError, match="fold 2 is not there"):
        deployment(service.fold(0))


def test_restarted_fold_counts_once(service: Service) -> None:
    service.complete(1)
    service.fold(1, name="cv_1_first_try", status="Failed")
    assert deployment(service.fold(0)).ensemble is not None


def test_two_completed_runs_of_one_fold_are_refused(service: Service) -> None:
    service.complete(1)
    deployment(service.fold(1, name="cv_1_again"))
    service.put("cv_1_again", status="Completed")
    with pytest.raises(InputError, match="cv_1 and cv_1_again both are fold 1"):
        deployment(service.fold(0))


def test_model_of_another_run_is_no_member(service: Service) -> None:
    service.complete(1)
    service.complete(2)
    tags = service.tags("cv_1")
    service.put("cv_1", tags={**tags, "model_id": service.tags("cv_2")["model_id"]})
    with pytest.raises(InputError, match="the model of fold 1, is of run cv_2, not cv_1"):
        deployment(service.fold(0))


# --- a second fold 0 --------------------------------------------------------------------------------------------------


def test_restarted_fold_0_registers_no_second_ensemble(service: Service) -> None:
    service.complete(1)
    zero = service.fold(0)
    first = deployment(zero)
    second = deployment(zero, packaging=PackageOptions(replace=True))
    assert second.model.version == 4
    assert second.ensemble == first.ensemble


def test_ensemble_whose_run_was_not_tagged_is_found(service: Service) -> None:
    service.complete(1)
    zero = service.fold(0)
    first = deployment(zero)
    service.put("cv", tags={})
    second = deployment(zero, packaging=PackageOptions(replace=True))
    assert second.ensemble == first.ensemble
    assert first.ensemble is not None
    assert service.tags("cv") == {"model_id": first.ensemble.id}


def test_deleted_ensemble_is_made_again(service: Service) -> None:
    service.complete(1)
    zero = service.fold(0)
    first = deployment(zero).ensemble
    assert first is not None
    LocalRegistry().delete(first)
    second = deployment(zero, packaging=PackageOptions(replace=True)).ensemble
    assert second is not None
    assert second.version > first.version


def test_two_folds_0_at_once_register_one_ensemble(service: Service) -> None:
    service.complete(1)
    folders = [service.fold(0), service.fold(0, name="cv_0_again")]
    threads = [threading.Thread(target=deployment, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ensembles = [model for model in LocalRegistry().models() if model.tags["is_ensemble"] == "True"]
    assert len(ensembles) == 1


def test_existing_ensemble_folder_is_refused_before_any_work(service: Service) -> None:
    service.complete(1)
    zero = service.fold(0)
    (zero / "final_ensemble_model").mkdir()
    with pytest.raises(InnerEyeError, match="final_ensemble_model"):
        deployment(zero)
    assert "model_id" not in service.tags("cv_0")


# --- the command line -------------------------------------------------------------------------------------------------


def test_deploy_prints_both_ids(service: Service, innereye: Callable[..., Any]) -> None:
    service.complete(1)
    outcome = innereye("deploy", service.fold(0), "--ensemble-timeout", "30m")
    assert outcome.stdout.splitlines()[-2:] == ["Toy:2", "Toy:3"]


def test_deploy_json_has_the_ensemble(service: Service, innereye: Callable[..., Any]) -> None:
    service.complete(1)
    document = innereye("deploy", service.fold(0), "--json").json
    assert document["id"] == "Toy:2"
    assert document["ensemble"] == {
        "id": "Toy:3",
        "name": "Toy",
        "version": 3,
        "registry": "local",
        "run": "cv",
    }


@pytest.mark.parametrize("timeout", ["soon", "-1", "1d", "1.m"])
def test_impossible_timeout_is_refused(innereye: Callable[..., Any], timeout: str) -> None:
    innereye("deploy", "run", f"--ensemble-timeout={timeout}").refused(2, timeout, "24h")


def test_current_run_registers_and_is_tagged(
    service: Service, innereye: Callable[..., Any], packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.put("job", status="Running", tags={"site": "Basel"}, properties={"experiment": "e", "other": "o"})
    monkeypatch.setenv("FARM_RUN", "job")
    model_id = innereye("register", packaged).stdout.strip()
    assert service.tags("job")["model_id"] == model_id
    model = LocalRegistry().get("Toy", None)
    assert model.tags == {"site": "Basel", "is_ensemble": "False"}
    assert model.properties["experiment"] == "e"
    assert "other" not in model.properties
