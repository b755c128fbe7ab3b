"""Local runs: run.json is made, read and tagged; folds know their parent."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from innereye_core.builtin.runs import LocalRuns
from innereye_core.contract.providers import RunSource
from innereye_core.errors import InputError, StorageError
from innereye_core.model import Run

fork = multiprocessing.get_context("fork")


@pytest.fixture
def runs() -> RunSource:
    return LocalRuns()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "prostate"
    folder.mkdir()
    (folder / "model.yaml").write_text("")
    return folder


def opened(runs: RunSource, folder: Path) -> Run:
    run = runs.open(str(folder))
    assert run is not None
    return run


def document(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "run.json").read_text())
    return content


def describe(folder: Path, **keys: object) -> None:
    content = {"id": "r1", "name": "Prostate", "status": "completed", "tags": {}, "properties": {}, "parent": None}
    (folder / "run.json").write_text(json.dumps({**content, **keys}))


# --- opening ----------------------------------------------------------------------------------------------------------


def test_run_json_is_made_if_missing(runs: RunSource, folder: Path) -> None:
    run = opened(runs, folder)

    assert document(folder) == {
        "id": run.id,
        "name": "prostate",
        "status": "unknown",
        "tags": {},
        "properties": {},
        "parent": None,
    }


def test_id_stays_when_the_run_is_opened_again(runs: RunSource, folder: Path) -> None:
    assert opened(runs, folder) == opened(runs, folder)


def test_ids_of_runs_with_one_name_differ(runs: RunSource, tmp_path: Path) -> None:
    folders = [tmp_path / place / "run" for place in ("a", "b")]
    for folder in folders:
        (folder / "checkpoints").mkdir(parents=True)
    assert len({opened(runs, folder).id for folder in folders}) == 2


def test_processes_that_open_a_new_run_at_once_agree_on_its_id(runs: RunSource, folder: Path) -> None:
    with fork.Pool(4) as pool:
        ids = pool.map(open_id, [str(folder)] * 8, chunksize=1)

    assert set(ids) == {document(folder)["id"]}


def open_id(folder: str) -> str:
    run = LocalRuns().open(folder)
    return "" if run is None else run.id


def test_run_is_what_run_json_says(runs: RunSource, folder: Path) -> None:
    describe(folder, tags={"site": "Basel"}, properties={"git": "abc"}, parent="p1")

    assert opened(runs, folder) == Run(
        id="r1",
        name="Prostate",
        folder=folder,
        source="local",
        status="completed",
        tags={"site": "Basel"},
        properties={"git": "abc"},
        parent="p1",
    )


def test_relative_reference(runs: RunSource, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert opened(runs, Path()).folder == folder


@pytest.mark.parametrize("what", ["run.json", "model.yaml", "checkpoints", "0"])
def test_folder_with_anything_of_a_run_is_one(runs: RunSource, tmp_path: Path, what: str) -> None:
    if what == "run.json":
        describe(tmp_path)
    else:
        (tmp_path / what).mkdir()
    assert runs.open(str(tmp_path)) is not None


def test_other_folder_is_no_run_and_stays_as_it_is(runs: RunSource, tmp_path: Path) -> None:
    assert runs.open(str(tmp_path)) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reference", ["nothing-there", "azureml://experiment/run"])
def test_reference_that_is_no_folder_is_left_to_other_sources(runs: RunSource, reference: str) -> None:
    assert runs.open(reference) is None


def test_file_is_no_run(runs: RunSource, folder: Path) -> None:
    assert runs.open(str(folder / "model.yaml")) is None


def test_process_is_never_part_of_a_local_run(runs: RunSource) -> None:
    assert runs.current() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"run\.json:1: is not valid JSON"),
        ("[]", r"run\.json: must hold one JSON object"),
        ('{"id": "a", "id": "b"}', r"run\.json: duplicate key 'id'"),
        ("{}", r"run\.json: id: must be a text, not None"),
        ('{"id": ""}', r"run\.json: id: must be a text, not ''"),
        ('{"id": 7}', r"run\.json: id: must be a text, not 7"),
        ('{"id": "a", "name": null}', r"run\.json: name: must be a text, not None"),
        ('{"id": "a", "tags": ["x"]}', r"run\.json: tags: must hold names and texts, not \['x'\]"),
        ('{"id": "a", "properties": 1}', r"run\.json: properties: must hold names and texts, not 1"),
        ('{"id": "a", "parent": 3}', r"run\.json: parent: must be the id of a run or null, not 3"),
    ],
)
def test_broken_run_json(runs: RunSource, folder: Path, text: str, message: str) -> None:
    (folder / "run.json").write_text(text)

    with pytest.raises(InputError, match=message):
        runs.open(str(folder))

    assert (folder / "run.json").read_text() == text


def test_run_json_may_be_short(runs: RunSource, folder: Path) -> None:
    (folder / "run.json").write_text('{"id": "r1"}')
    run = opened(runs, folder)
    assert (run.id, run.name, run.status, run.tags, run.parent) == ("r1", "prostate", "unknown", {}, None)


# --- folds ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def parent(folder: Path) -> Path:
    describe(folder, id="p1")
    for name in ("0", "1", "10", "2", "epoch_001", "final_model", "01"):
        (folder / name).mkdir()
    (folder / "3").write_text("a file")
    return folder


def test_children_are_the_folders_named_by_a_number_in_numeric_order(runs: RunSource, parent: Path) -> None:
    assert [run.fold for run in runs.children(opened(runs, parent))] == ["0", "1", "2", "10"]


def test_child_names_its_parent(runs: RunSource, parent: Path) -> None:
    child = runs.children(opened(runs, parent))[1]
    assert (child.name, child.parent, child.inherits_from) == ("Prostate_1", "p1", parent)


def test_child_keeps_a_record_of_itself(runs: RunSource, parent: Path) -> None:
    child = runs.children(opened(runs, parent))[0]
    assert (document(parent / "0")["id"], document(parent / "0")["parent"]) == (child.id, "p1")


def test_child_opened_by_its_own_folder_is_the_same(runs: RunSource, parent: Path) -> None:
    assert opened(runs, parent / "2") == runs.children(opened(runs, parent))[2]


def test_folder_named_by_a_number_is_no_fold_where_there_is_no_run_above(runs: RunSource, tmp_path: Path) -> None:
    (tmp_path / "7" / "checkpoints").mkdir(parents=True)
    run = opened(runs, tmp_path / "7")
    assert (run.fold, run.parent, run.inherits_from) == (None, None, None)


def test_run_without_folds_has_no_children(runs: RunSource, folder: Path) -> None:
    assert runs.children(opened(runs, folder)) == []


# --- tags -------------------------------------------------------------------------------------------------------------


def test_tags_are_added_and_replaced(runs: RunSource, folder: Path) -> None:
    describe(folder, tags={"site": "Basel", "stage": "old"})

    run = runs.add_tags(opened(runs, folder), {"stage": "new", "model_id": "Prostate:1"})

    assert run.tags == {"site": "Basel", "stage": "new", "model_id": "Prostate:1"}
    assert opened(runs, folder).tags == run.tags


def test_tagging_keeps_what_others_wrote_into_run_json(runs: RunSource, folder: Path) -> None:
    describe(folder, cluster={"nodes": 4}, note="größer")

    runs.add_tags(opened(runs, folder), {"a": "b"})

    written = document(folder)
    assert (written["cluster"], written["note"], written["status"]) == ({"nodes": 4}, "größer", "completed")


def test_tags_that_others_added_meanwhile_stay(runs: RunSource, folder: Path) -> None:
    run = opened(runs, folder)
    runs.add_tags(run, {"first": "1"})

    assert runs.add_tags(run, {"second": "2"}).tags == {"first": "1", "second": "2"}


def test_concurrent_tags_are_all_kept(runs: RunSource, folder: Path) -> None:
    run = opened(runs, folder)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: LocalRuns().add_tags(run, {f"tag{i}": str(i)}), range(24)))

    assert opened(runs, folder).tags == {f"tag{i}": str(i) for i in range(24)}


def test_run_whose_json_was_removed_gets_it_back_with_the_tag(runs: RunSource, folder: Path) -> None:
    run = opened(runs, folder)
    (folder / "run.json").unlink()

    runs.add_tags(run, {"a": "b"})

    assert (document(folder)["id"], document(folder)["tags"]) == (run.id, {"a": "b"})


# --- folders that may not be written to -------------------------------------------------------------------------------


def test_run_that_cannot_be_written_to_can_still_be_read(
    runs: RunSource, folder: Path, as_nobody: Callable[..., str]
) -> None:
    runs.open("nothing")  # imports what nobody might not be allowed to read
    assert as_nobody(folder, lambda: opened(runs, folder).name) == "prostate"


def test_run_that_cannot_be_written_to_cannot_be_tagged(
    runs: RunSource, folder: Path, as_nobody: Callable[..., str]
) -> None:
    describe(folder)
    run = opened(runs, folder)

    outcome = as_nobody(folder, lambda: runs.add_tags(run, {"a": "b"}))

    assert outcome.startswith(f"{StorageError.__name__}: cannot write {folder}/run.json: Permission denied")
    assert document(folder)["tags"] == {}
