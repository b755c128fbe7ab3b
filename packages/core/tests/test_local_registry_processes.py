"""Many processes and threads use one local registry at once, and some of them are killed."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from child_processes import fork, kill_at_line, lines_of

from innereye_core.builtin.local_registry import LocalRegistry
from innereye_core.manifest import open_package, verify, write_manifest
from innereye_core.model import Manifest, Package, Registration, RunRecord
from innereye_core.progress import Silent


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalRegistry:
    monkeypatch.setenv("INNEREYE_REGISTRY_DIR", str(tmp_path / "registry"))
    return LocalRegistry()


@pytest.fixture
def package(tmp_path: Path) -> Package:
    folder = tmp_path / "final_model"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.txt").write_text(f"file {i}")
    run = RunRecord("run_1", "run", "local")
    draft = Manifest("final_model", "Prostate", "2026-11-22T12:00:00+00:00", (), (), {"python": "3.11"}, run, ())
    return write_manifest(folder, draft, {})


def assert_every_version_is_complete(registry: LocalRegistry, versions: int, *, since: int = 0) -> None:
    """Versions up to ``since`` were looked at before."""
    found = registry.models()
    assert [model.version for model in found] == list(range(1, versions + 1))
    for model in found[since:]:
        assert verify(open_package(registry.folder(model))) == ()


def test_eight_processes_that_register_one_name_get_every_number_once(
    registry: LocalRegistry, package: Package, tmp_path: Path
) -> None:
    numbers = fork.Queue()

    def work() -> None:
        for _ in range(25):
            numbers.put(registry.register(package, Registration("Prostate"), Silent()).version)

    children = [fork.Process(target=work) for _ in range(8)]
    for child in children:
        child.start()
    got = [numbers.get(timeout=60) for _ in range(200)]
    for child in children:
        child.join()

    assert sorted(got) == list(range(1, 201))
    assert_every_version_is_complete(registry, 200)
    assert sorted(path.name for path in (tmp_path / "registry" / "models").iterdir()) == ["Prostate"]


def test_threads_that_register_one_name_get_every_number_once(registry: LocalRegistry, package: Package) -> None:
    with ThreadPoolExecutor(4) as threads:
        models = list(threads.map(lambda _: registry.register(package, Registration("Prostate"), Silent()), range(20)))

    assert sorted(model.version for model in models) == list(range(1, 21))
    assert_every_version_is_complete(registry, 20)


def test_tags_that_many_processes_set_at_once_are_all_kept(registry: LocalRegistry, package: Package) -> None:
    model = registry.register(package, Registration("Prostate"), Silent())

    def work(process: int) -> None:
        for i in range(10):
            registry.tag(model, {f"{process}.{i}": "set"})

    children = [fork.Process(target=work, args=(process,)) for process in range(6)]
    for child in children:
        child.start()
    for child in children:
        child.join()

    assert [child.exitcode for child in children] == [0] * 6
    assert registry.get("Prostate", 1).tags == {f"{process}.{i}": "set" for process in range(6) for i in range(10)}


def test_after_a_kill_at_any_moment_every_version_is_complete(
    registry: LocalRegistry, package: Package, tmp_path: Path
) -> None:
    def register() -> None:
        registry.register(package, Registration("Prostate"), Silent())

    register()
    lines = lines_of(register)
    versions = 2
    moments = random.Random(2)
    for _ in range(50):
        kill_at_line(moments.randrange(3 * lines), register)

        found = len(registry.models())
        assert found >= versions
        assert_every_version_is_complete(registry, found, since=versions)
        versions = found

    assert versions > 20  # the kills hit work in progress
    register()
    assert_every_version_is_complete(registry, versions + 1)
    assert [path.name for path in (tmp_path / "registry" / "models").iterdir()] == ["Prostate"]


def test_after_a_kill_at_any_moment_of_tagging_or_deleting_the_record_is_whole(
    registry: LocalRegistry, package: Package
) -> None:
    for _ in range(60):
        registry.register(package, Registration("Prostate"), Silent())

    def tag_and_delete_latest() -> None:
        model = registry.get("Prostate", None)
        registry.tag(model, {"reviewed": "yes"})
        registry.delete(model)

    lines = lines_of(tag_and_delete_latest)
    moments = random.Random(3)
    for _ in range(20):
        kill_at_line(moments.randrange(2 * lines), tag_and_delete_latest)

        found = registry.models()
        assert [model.version for model in found] == list(range(1, len(found) + 1))
        assert verify(open_package(registry.folder(found[-1]))) == ()

    assert 0 < len(found) < 50  # the kills hit work in progress
    assert registry.register(package, Registration("Prostate"), Silent()).version == 61
