"""The local registry keeps packages under name:version in a folder that a person can read."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from child_processes import in_child

from innereye_core.builtin import local_registry
from innereye_core.builtin.local_registry import LocalRegistry, registry_folder
from innereye_core.contract.providers import Registry
from innereye_core.errors import InnerEyeError, IntegrityError, RegistryError, StorageError, UsageError
from innereye_core.manifest import open_package, verify, write_manifest
from innereye_core.model import Manifest, Package, RegisteredModel, Registration, RunRecord
from innereye_core.progress import Silent

NOBODY = 65534


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INNEREYE_REGISTRY_DIR", str(tmp_path / "registry"))
    return tmp_path / "registry"


@pytest.fixture
def registry(root: Path) -> LocalRegistry:
    return LocalRegistry()


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return make_package(tmp_path / "run" / "final_model")


def make_package(folder: Path, checkpoint: bytes = b"weights") -> Package:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "score.py").write_text("print('scored')\n")
    (folder / "checkpoints" / "1_checkpoint.pth.tar").write_bytes(checkpoint)
    run = RunRecord("run_1", "run", "local")
    draft = Manifest("final_model", "Prostate", "2026-11-22T12:00:00+00:00", (), (), {"python": "3.11"}, run, ())
    return write_manifest(folder, draft, {"score.py": "entry"})


def register(registry: LocalRegistry, package: Package, count: int = 1, name: str = "Prostate") -> RegisteredModel:
    for _ in range(count):
        model = registry.register(package, Registration(name), Silent())
    return model


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


# --- where it is ------------------------------------------------------------------------------------------------------


def test_the_folder_is_looked_up_at_each_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        monkeypatch.setenv("INNEREYE_REGISTRY_DIR", str(tmp_path / name))
        assert registry_folder() == tmp_path / name


def test_the_default_is_the_users_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INNEREYE_REGISTRY_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))

    assert registry_folder().is_relative_to(tmp_path)
    assert registry_folder().name == "registry"


def test_it_offers_what_a_registry_must(registry: LocalRegistry) -> None:
    assert isinstance(registry, Registry)


# --- registering ------------------------------------------------------------------------------------------------------


def test_versions_count_from_one_for_each_name(registry: LocalRegistry, package: Package) -> None:
    ids = [register(registry, package, name=name).id for name in ("Prostate", "Prostate", "Heart", "Prostate")]

    assert ids == ["Prostate:1", "Prostate:2", "Heart:1", "Prostate:3"]
    assert [model.id for model in registry.models()] == ["Heart:1", "Prostate:1", "Prostate:2", "Prostate:3"]


def test_what_was_registered_is_what_is_found(registry: LocalRegistry, package: Package) -> None:
    registration = Registration("Prostate", {"run": "run_1", "größe": "klein"}, {"epochs": "3"}, "Two\nlines")

    model = registry.register(package, registration, Silent())

    assert registry.get("Prostate", 1) == model
    assert registry.models() == [model]
    assert (model.tags, model.properties, model.description) == (
        registration.tags,
        registration.properties,
        registration.description,
    )
    assert (model.registry, model.folder_name) == ("local", "final_model")


def test_the_layout_can_be_read_by_a_person(registry: LocalRegistry, package: Package, root: Path) -> None:
    register(registry, package)

    found = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    assert found == [
        "models/Prostate/1/files/final_model/checkpoints/1_checkpoint.pth.tar",
        "models/Prostate/1/files/final_model/manifest.json",
        "models/Prostate/1/files/final_model/score.py",
        "models/Prostate/1/model.json",
    ]
    document = json.loads((root / "models" / "Prostate" / "1" / "model.json").read_text())
    assert document["name"] == "Prostate"
    assert document["version"] == 1
    assert document["package_digest"] == package.digest
    assert document["deleted"] is None


def test_only_what_the_manifest_lists_is_registered(registry: LocalRegistry, package: Package) -> None:
    (package.folder / "segmentation.nii.gz").touch()

    folder = registry.folder(register(registry, package))

    assert not (folder / "segmentation.nii.gz").exists()
    assert open_package(folder).manifest == package.manifest


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_package_that_is_not_what_it_was_is_not_registered(
    registry: LocalRegistry, package: Package, root: Path, damage: str
) -> None:
    checkpoint = package.folder / "checkpoints" / "1_checkpoint.pth.tar"
    if damage == "changed":
        checkpoint.write_bytes(b"sthgiew")
    else:
        checkpoint.unlink()

    with pytest.raises(IntegrityError, match=rf"1_checkpoint\.pth\.tar .*{damage}"):
        register(registry, package)

    assert registry.models() == []
    assert list((root / "models").iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "../x", ".hidden", "a/b", "a b", "a\n", "x" * 256, "größe"])
def test_a_name_that_not_every_registry_accepts_is_refused(
    registry: LocalRegistry, package: Package, name: str
) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a model"):
        register(registry, package, name=name)
    with pytest.raises(RegistryError, match="is not in the local registry"):
        registry.get(name, None)


@pytest.mark.parametrize(
    ("labels", "message"),
    [({"": "x"}, "tag ''"), ({"a=b": "x"}, "tag 'a=b'"), ({"a\nb": "x"}, "tag 'a.nb'"), ({"a": 1}, "the value 1")],
)
def test_a_tag_that_cannot_be_written_as_key_and_value_is_refused(
    registry: LocalRegistry, package: Package, labels: dict[str, Any], message: str
) -> None:
    model = register(registry, package)

    with pytest.raises(UsageError, match=message):
        registry.register(package, Registration("Prostate", tags=labels), Silent())
    with pytest.raises(UsageError, match=message):
        registry.tag(model, labels)


def test_text_that_utf8_cannot_hold_is_refused(registry: LocalRegistry, package: Package) -> None:
    """A command line in another encoding arrives like this."""
    with pytest.raises(UsageError, match=r"the description .* must be a text"):
        registry.register(package, Registration("Prostate", description=os.fsdecode(b"\xff")), Silent())
    with pytest.raises(UsageError, match=r"property 'a': the value .* must be a text"):
        registry.register(package, Registration("Prostate", properties={"a": os.fsdecode(b"\xff")}), Silent())


# --- finding ----------------------------------------------------------------------------------------------------------


def test_a_registry_that_does_not_exist_is_empty_and_stays_so(registry: LocalRegistry, root: Path) -> None:
    assert registry.models() == []
    with pytest.raises(RegistryError, match=r"Prostate:latest is not in the local registry .*: there is none"):
        registry.get("Prostate", None)
    model = RegisteredModel("Prostate", 1, "local", "final_model", "", {}, {}, "")
    for change in (lambda: registry.tag(model, {}), lambda: registry.delete(model), lambda: registry.folder(model)):
        with pytest.raises(RegistryError, match="Prostate:1 is not in the local registry"):
            change()
    assert not root.exists()


def test_latest_is_the_highest_number_not_the_last_by_alphabet(registry: LocalRegistry, package: Package) -> None:
    register(registry, package, count=11)

    assert registry.get("Prostate", None).version == 11


@pytest.mark.parametrize("version", [0, -1, 3])
def test_a_version_that_there_is_not(registry: LocalRegistry, package: Package, version: int) -> None:
    register(registry, package, count=2)

    with pytest.raises(RegistryError, match=rf"Prostate:{version} is not in the local registry .*see 'innereye models"):
        registry.get("Prostate", version)


def test_what_does_not_belong_there_is_ignored_with_a_warning(
    registry: LocalRegistry, package: Package, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = register(registry, package)
    models = root / "models"
    for foreign in ("Prostate/backup", "Prostate/7", "not a name"):
        (models / foreign).mkdir()
    (models / "notes.txt").touch()

    with caplog.at_level(logging.WARNING):
        assert registry.models() == [model]
        assert registry.get("Prostate", None) == model

    for foreign in ("Prostate/backup", "Prostate/7", "not a name", "notes.txt"):
        assert str(models / foreign) in caplog.text
    assert register(registry, package).version == 8  # the number of a folder that is there is never taken


def damaged(document: dict[str, Any]) -> None:
    document["tags"] = None


def displaced(document: dict[str, Any]) -> None:
    document["version"] = 1


@pytest.mark.parametrize("change", [damaged, displaced])
def test_a_damaged_version_is_an_error_only_where_it_is_asked_for(
    registry: LocalRegistry,
    package: Package,
    root: Path,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[dict[str, Any]], None],
) -> None:
    register(registry, package, count=2)
    path = root / "models" / "Prostate" / "2" / "model.json"
    edit(path, change)

    for version in (2, None):  # the latest is never silently an older one
        with pytest.raises(IntegrityError, match=rf"{path}: "):
            registry.get("Prostate", version)
    with caplog.at_level(logging.WARNING):
        assert [model.version for model in registry.models()] == [1]
    assert str(path) in caplog.text


def test_a_copy_of_the_registry_is_a_registry(
    registry: LocalRegistry, package: Package, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = register(registry, package)
    shutil.copytree(root, tmp_path / "copy")
    monkeypatch.setenv("INNEREYE_REGISTRY_DIR", str(tmp_path / "copy"))

    assert registry.models() == [model]
    assert verify(open_package(registry.folder(model))) == ()


# --- getting the files ------------------------------------------------------------------------------------------------


def test_fetching_gives_the_whole_package(registry: LocalRegistry, package: Package, tmp_path: Path) -> None:
    model = register(registry, package)
    target = tmp_path / "downloaded"
    target.mkdir()

    registry.fetch(model, target, Silent())

    assert open_package(target).manifest == package.manifest
    assert verify(open_package(target)) == ()


def test_a_file_that_changed_in_the_registry_is_not_fetched(
    registry: LocalRegistry, package: Package, tmp_path: Path
) -> None:
    model = register(registry, package)
    (registry.folder(model) / "score.py").write_text("print('hacked')\n")
    (tmp_path / "downloaded").mkdir()

    with pytest.raises(IntegrityError, match=r"score\.py has changed"):
        registry.fetch(model, tmp_path / "downloaded", Silent())


def test_a_manifest_that_changed_in_the_registry_is_found_at_once(registry: LocalRegistry, package: Package) -> None:
    model = register(registry, package)
    manifest = registry.folder(model) / "manifest.json"

    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(IntegrityError, match="is not what was registered as Prostate:1"):
        registry.folder(model)

    manifest.unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        registry.folder(model)


# --- tags and deletion ------------------------------------------------------------------------------------------------


def test_tags_are_added_and_replaced(registry: LocalRegistry, package: Package) -> None:
    model = registry.register(package, Registration("Prostate", tags={"stage": "test", "kept": "yes"}), Silent())

    tagged = registry.tag(model, {"stage": "clinic", "new": "a=b"})

    assert tagged.tags == {"stage": "clinic", "kept": "yes", "new": "a=b"}
    assert registry.get("Prostate", 1) == tagged
    assert verify(open_package(registry.folder(tagged))) == ()


def test_a_deleted_version_is_gone_and_its_number_is_never_used_again(
    registry: LocalRegistry, package: Package, root: Path
) -> None:
    register(registry, package, count=3)

    registry.delete(registry.get("Prostate", 3))

    assert [model.version for model in registry.models()] == [1, 2]
    assert registry.get("Prostate", None).version == 2
    with pytest.raises(RegistryError, match=r"Prostate:3 was deleted on \d{4}-\d\d-\d\dT"):
        registry.get("Prostate", 3)
    assert [path.name for path in (root / "models" / "Prostate" / "3").iterdir()] == ["model.json"]
    assert register(registry, package).version == 4


def test_when_all_versions_are_deleted_there_is_no_latest(registry: LocalRegistry, package: Package) -> None:
    registry.delete(register(registry, package))

    with pytest.raises(RegistryError, match=r"Prostate:latest is not in .*: Prostate:1 was deleted"):
        registry.get("Prostate", None)


def test_a_deleted_version_cannot_be_changed(registry: LocalRegistry, package: Package) -> None:
    model = register(registry, package)
    registry.delete(model)

    for change in (lambda: registry.tag(model, {"a": "b"}), lambda: registry.delete(model)):
        with pytest.raises(RegistryError, match="Prostate:1 was deleted"):
            change()


def test_a_deletion_that_was_interrupted_is_finished_by_the_next_one(
    registry: LocalRegistry, package: Package, root: Path
) -> None:
    register(registry, package, count=2)
    edit(root / "models" / "Prostate" / "1" / "model.json", lambda record: record.update(deleted="2026-11-22"))
    assert [model.version for model in registry.models()] == [2]

    registry.delete(registry.get("Prostate", 2))

    assert not (root / "models" / "Prostate" / "1" / "files").exists()
    assert not (root / "models" / "Prostate" / "2" / "files").exists()


def test_a_lock_that_is_never_released_is_an_error(
    registry: LocalRegistry, package: Package, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from filelock import FileLock

    model = register(registry, package)
    monkeypatch.setattr(local_registry, "_LOCK_TIMEOUT_SECONDS", 0.05)

    with (
        FileLock(root / "models" / "Prostate" / ".lock"),
        pytest.raises(RegistryError, match=r"Prostate:1: another process has held .*\.lock for long; try again"),
    ):
        registry.tag(model, {"a": "b"})


# --- failing disks ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_in_the_middle_of_registering_leaves_what_was_there(
    registry: LocalRegistry, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNEREYE_REGISTRY_DIR", str(small_disk / "registry"))
    package = make_package(tmp_path / "final_model", checkpoint=bytes(400_000))
    model = register(registry, package, count=2)

    with pytest.raises(StorageError, match=r"No space left .*\(the local registry is .*; INNEREYE_REGISTRY_DIR names"):
        register(registry, package)

    assert [found.version for found in registry.models()] == [1, 2]
    assert verify(open_package(registry.folder(model))) == ()
    names = sorted(path.name for path in (small_disk / "registry" / "models").rglob("*"))
    assert not [name for name in names if name.startswith(".innereye")]
    registry.delete(registry.get("Prostate", 1))
    assert register(registry, package).version == 3


def test_a_limit_on_file_sizes_leaves_no_version(registry: LocalRegistry, package: Package, root: Path) -> None:
    import resource

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
        with pytest.raises(StorageError, match=r"File too large; raise the limit"):
            register(registry, package)

    in_child(work)

    assert registry.models() == []
    assert list((root / "models").iterdir()) == []


@pytest.fixture
def read_only(package: Package, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A registry with Prostate:1 in a place that all users can read and none may write to."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        monkeypatch.setenv("INNEREYE_REGISTRY_DIR", str(place / "registry"))
        register(LocalRegistry(), package)
        folders = [place, *(path for path in place.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        yield place / "registry"
        for folder in folders:
            folder.chmod(0o755)


def test_a_registry_that_may_not_be_written_to_says_so_and_names_the_variable(
    registry: LocalRegistry, package: Package, read_only: Path
) -> None:
    model = registry.get("Prostate", 1)
    reachable = make_package(read_only.parent.parent / f"{read_only.parent.name}-package" / "final_model")

    def work() -> None:
        for change in (
            lambda: register(registry, reachable),
            lambda: registry.tag(model, {"a": "b"}),
            lambda: registry.delete(model),
        ):
            with pytest.raises(StorageError) as caught:
                change()
            message = str(caught.value)
            assert str(read_only) in message
            assert "Permission denied" in message
            assert "INNEREYE_REGISTRY_DIR" in message
            assert "\n" not in message

    try:
        in_child(work, user=NOBODY)
    finally:
        shutil.rmtree(reachable.folder.parent)

    assert registry.models() == [model]


def test_a_registry_that_may_not_be_written_to_can_be_read(registry: LocalRegistry, read_only: Path) -> None:
    before = sorted(read_only.rglob("*"))

    def work() -> None:
        [model] = registry.models()
        assert registry.get("Prostate", None) == model
        assert verify(open_package(registry.folder(model))) == ()

    in_child(work, user=NOBODY)

    assert sorted(read_only.rglob("*")) == before


def test_a_registry_that_may_not_be_read_says_so(registry: LocalRegistry, read_only: Path) -> None:
    (read_only / "models").chmod(0)

    def work() -> None:
        with pytest.raises(InnerEyeError, match=r"^cannot read the local registry .*INNEREYE_REGISTRY_DIR.*Permission"):
            registry.models()

    in_child(work, user=NOBODY)
