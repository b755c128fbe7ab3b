"""The manifest lists every file of a package, and whatever no longer agrees with it is found."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from innereye_core.digests import sha256_of_bytes
from innereye_core.errors import InnerEyeError, InputError, IntegrityError
from innereye_core.manifest import copy_package, open_package, read_manifest, verify, write_manifest
from innereye_core.model import Manifest, MemberRecord, Package, PackagedCheckpoint, PluginRecord, RunRecord
from innereye_core.progress import Silent

FILES = {
    "score.py": "entry",
    "README.md": "card",
    "InnerEye/Common/innereye_core/__init__.py": "toolbox",
    "YourCode/nets.py": "code",
    "checkpoints/2_checkpoint.pth.tar": "checkpoint",
}

DRAFT = Manifest(
    kind="final_model",
    model_name="Prostate",
    created="2026-11-22T12:00:00+00:00",
    files=(),
    plugins=(PluginRecord("imaging", "innereye_imaging.plugin", "innereye-imaging", "0.1.0"),),
    versions={"torch": "2.13.0", "python": "3.11.9"},
    run=RunRecord("run_1", "run", "local"),
    members=(
        MemberRecord(
            path="checkpoints/2_checkpoint.pth.tar",
            run="run_1",
            fold=None,
            epoch=2,
            candidates=1,
            policy="best_validation_dice",
            score=None,
            checkpoint=PackagedCheckpoint("2_checkpoint.pth.tar", "0" * 64, 1000, 2, removed=("optimizer",)),
        ),
    ),
    extra_code="YourCode",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete package folder without its manifest."""
    folder = tmp_path / "final_model"
    for path in FILES:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(f"content of {path}\n")
    return folder


@pytest.fixture
def package(folder: Path) -> Package:
    return write_manifest(folder, DRAFT, FILES)


def edit(package: Package, change: Callable[[dict[str, Any]], None]) -> None:
    path = package.folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


# --- writing ----------------------------------------------------------------------------------------------------------


def test_every_file_is_listed_with_digest_size_and_role(package: Package) -> None:
    records = {record.path: record for record in package.manifest.files}

    assert {path: record.role for path, record in records.items()} == FILES
    content = b"content of score.py\n"
    assert (records["score.py"].sha256, records["score.py"].size) == (sha256_of_bytes(content), len(content))


def test_a_file_that_nobody_planned_is_listed_as_other(folder: Path) -> None:
    (folder / "notes.txt").write_text("made by the packager itself")

    package = write_manifest(folder, DRAFT, FILES)

    assert {record.role for record in package.manifest.files if record.path == "notes.txt"} == {"other"}


def test_the_file_is_readable_and_always_the_same(package: Package) -> None:
    first = (package.folder / "manifest.json").read_bytes()
    document = json.loads(first)

    assert list(document) == ["schema_version", *(field.name for field in dataclasses.fields(Manifest))]
    assert document["schema_version"] == 1
    assert [record["path"] for record in document["files"]] == sorted(FILES)
    assert first.endswith(b"}\n")
    assert write_manifest(package.folder, package.manifest, FILES) == package
    assert (package.folder / "manifest.json").read_bytes() == first


def test_what_is_written_is_what_is_read(package: Package) -> None:
    assert open_package(package.folder) == package
    assert dataclasses.replace(package.manifest, files=()) == DRAFT


def test_the_package_digest_is_that_of_the_manifest(package: Package) -> None:
    assert package.digest == "sha256:" + sha256_of_bytes((package.folder / "manifest.json").read_bytes())


def test_a_planned_file_that_is_missing_is_refused(folder: Path) -> None:
    (folder / "score.py").unlink()

    with pytest.raises(IntegrityError, match=r"score\.py is missing; the packager must write every planned file"):
        write_manifest(folder, DRAFT, FILES)


@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "socket"])
def test_a_package_holds_plain_files_only(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "socket":
        monkeypatch.chdir(folder)  # names of sockets must be short
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("odd")
    else:
        (folder / "odd").symlink_to("score.py" if kind == "link to a file" else "InnerEye")

    with pytest.raises(IntegrityError, match="odd is a link or a device"):
        write_manifest(folder, DRAFT, FILES)


@pytest.mark.parametrize("name", ["back\\slash", "new\nline", "c:drive", "/".join(["x" * 60] * 5)])
def test_a_name_that_cannot_be_kept_everywhere_is_refused_in_one_line(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()

    with pytest.raises(InputError, match="rename the file") as caught:
        write_manifest(folder, DRAFT, FILES)

    assert "\n" not in str(caught.value)


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"), [("empty", "it has no manifest.json"), ("missing", "there is no such folder")]
)
def test_what_is_not_a_package_is_bad_input(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(InputError, match=f"{name} is not a package: {reason}"):
        open_package(tmp_path / name)


def test_a_folder_that_cannot_be_looked_into_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a package: it cannot be read \(File name too long\)"):
        open_package(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(surprise=1), "surprise: unknown key"),
        (lambda m: m["files"][0].update(mode="0644"), r"files\.0\.mode: unknown key"),
        (lambda m: m.pop("kind"), "kind: is required"),
        (lambda m: m.update(kind="final_mess"), "kind: .*, not 'final_mess'"),
        (lambda m: m["files"][2].update(size="12"), r"files\.2\.size: .*, not '12'"),
        (lambda m: m["files"][2].update(size=True), r"files\.2\.size: .*, not True"),
        (lambda m: m["files"][2].update(size=-1), r"files\.2\.size .* is negative"),
        (lambda m: m.update(model_name=["x"] * 99), r"model_name: .*…"),
        (lambda m: m["files"][1].update(path="../outside"), r"files\.1\.path '\.\./outside' leaves the folder"),
        (lambda m: m["files"][1].update(path="/etc/passwd"), r"files\.1\.path '/etc/passwd' leaves the folder"),
        (lambda m: m["files"][1].update(path="./score.py"), r"files\.1\.path .* is not the path of a file"),
        (lambda m: m["files"][1].update(path="manifest.json"), r"files\.1\.path .* is not the path of a file"),
        (lambda m: m["files"][1].update(path="a\nb"), r"files\.1\.path .* has a character that cannot be shown"),
        (lambda m: m["files"][1].update(path=m["files"][0]["path"]), r"files\.0\.path .* is listed twice"),
        (lambda m: m["files"][0].update(sha256="00"), r"files\.0\.sha256 .* is not a SHA-256 digest"),
        (lambda m: m["members"][0].update(path="1.ckpt"), r"members\.0\.path '1\.ckpt' is not among the files"),
        (lambda m: m["members"][0].update(score=float("nan")), "is not valid JSON"),
        (lambda m: m.update(extra_code=".."), r"extra_code '\.\.' is not the import name"),
        (lambda m: m.pop("schema_version"), "schema_version: must be a whole number"),
        (lambda m: m.update(schema_version=True), "schema_version: must be a whole number"),
        (lambda m: m.update(schema_version=2), "schema_version: 2 is newer than 1.*install a newer innereye-core"),
    ],
)
def test_an_impossible_manifest_is_refused_with_file_and_key(
    package: Package, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    edit(package, change)

    with pytest.raises(IntegrityError, match=rf"manifest\.json: {message}") as caught:
        read_manifest(package.folder)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"kind": "final_model"',
        b'{"schema_version": 1, "kind": "final_model", "kind": "final_model"}',
        b"\xff\xfe",
        b'{"schema_version": 1, "kind": NaN}',
        b'{"schema_version": ' + b"9" * 5000 + b"}",
        b'{"kind": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_a_damaged_manifest_is_refused_in_one_line(package: Package, content: bytes) -> None:
    (package.folder / "manifest.json").write_bytes(content)

    with pytest.raises(IntegrityError, match=r"manifest\.json") as caught:
        read_manifest(package.folder)

    assert "\n" not in str(caught.value)


# --- verifying --------------------------------------------------------------------------------------------------------


def test_an_untouched_package_verifies_without_warnings(package: Package) -> None:
    assert verify(package) == ()


def test_a_written_segmentation_is_a_warning(package: Package) -> None:
    (package.folder / "segmentation.nii.gz").touch()

    assert verify(package) == ("segmentation.nii.gz is not listed in manifest.json",)


def remove(folder: Path) -> None:
    (folder / "score.py").unlink()


def change_size(folder: Path) -> None:
    (folder / "score.py").write_text("short")


def change_content(folder: Path) -> None:
    path = folder / "checkpoints" / "2_checkpoint.pth.tar"
    path.write_bytes(path.read_bytes()[::-1])


def put_folder_in_place(folder: Path) -> None:
    (folder / "score.py").unlink()
    (folder / "score.py").mkdir()


def link_outside(folder: Path) -> None:
    outside = folder.parent / "outside.py"
    (folder / "score.py").rename(outside)
    (folder / "score.py").symlink_to(outside)


def link_folder_outside(folder: Path) -> None:
    (folder / "YourCode").rename(folder.parent / "YourCode")
    (folder / "YourCode").symlink_to(folder.parent / "YourCode")


def link_in_a_circle(folder: Path) -> None:
    (folder / "score.py").unlink()
    (folder / "score.py").symlink_to("score.py")


def put_file_for_folder(folder: Path) -> None:
    (folder / "YourCode" / "nets.py").unlink()
    (folder / "YourCode").rmdir()
    (folder / "YourCode").touch()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove, r"score\.py is missing"),
        (change_size, r"score\.py has changed \(5 bytes instead of 20\)"),
        (change_content, r"checkpoints/2_checkpoint\.pth\.tar has changed"),
        (put_folder_in_place, r"score\.py is not a file"),
        (link_outside, r"score\.py is a link that leaves the folder"),
        (link_folder_outside, r"YourCode/nets\.py is a link that leaves the folder"),
        (link_in_a_circle, r"score\.py cannot be read \(Too many levels of symbolic links\)"),
        (put_file_for_folder, r"YourCode/nets\.py is missing"),
    ],
)
def test_a_listed_file_that_is_not_what_it_was_is_found_by_verifying_and_by_copying(
    package: Package, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(package.folder)
    (tmp_path / "copy").mkdir()

    with pytest.raises(IntegrityError, match=message):
        verify(package)
    with pytest.raises(IntegrityError, match=message):
        copy_package(package, tmp_path / "copy", Silent())


@pytest.mark.parametrize(
    "path",
    [
        "InnerEye/anything.txt",
        "YourCode/__pycache__/nets.cpython-311.pyc",
        "checkpoints/9_checkpoint.pth.tar",
        "numpy.py",
        "somewhere/deep/CODE.PY",
    ],
)
def test_an_unlisted_file_where_code_or_checkpoints_are_is_refused(package: Package, path: str) -> None:
    (package.folder / path).parent.mkdir(parents=True, exist_ok=True)
    (package.folder / path).touch()

    with pytest.raises(IntegrityError, match=rf"{path} is not listed in manifest\.json"):
        verify(package)


def test_an_unlisted_link_to_a_folder_is_refused(package: Package, tmp_path: Path) -> None:
    """Python imports through it, and the code there was never looked at."""
    (tmp_path / "elsewhere").mkdir()
    (package.folder / "numpy").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(IntegrityError, match=r"numpy is not listed"):
        verify(package)


def test_many_problems_are_told_in_one_line(package: Package) -> None:
    for i in range(7):
        (package.folder / "InnerEye" / f"odd\n{i}.py").touch()

    with pytest.raises(IntegrityError, match=r"; and 2 more; download or package it again") as caught:
        verify(package)

    assert "\n" not in str(caught.value)


def test_a_folder_that_vanishes_is_found(package: Package) -> None:
    package.folder.rename(package.folder.with_name("moved"))

    with pytest.raises(IntegrityError, match="cannot be read: No such file or directory"):
        verify(package)


# --- copying ----------------------------------------------------------------------------------------------------------


def test_a_copy_holds_what_is_listed_and_nothing_else(package: Package, tmp_path: Path) -> None:
    (package.folder / "segmentation.nii.gz").touch()
    target = tmp_path / "copy"
    target.mkdir()

    copied = copy_package(package, target, Silent())

    assert copied == Package(target, package.manifest)
    assert verify(copied) == ()
    assert not (target / "segmentation.nii.gz").exists()
    assert copied.digest == package.digest


def test_a_manifest_that_changed_since_it_was_read_is_refused(package: Package, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    edit(package, lambda manifest: manifest.update(model_name="Other"))

    with pytest.raises(InnerEyeError, match="has changed since it was read"):
        copy_package(package, tmp_path / "copy", Silent())
