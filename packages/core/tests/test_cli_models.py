"""The commands around a registry: list, show, download, tag, verify, delete."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from innereye_core.digests import sha256_of_file

Invoke = Callable[..., Any]


@pytest.fixture
def registered(innereye: Invoke, packaged: Path) -> Path:
    """The package that is Toy:1 and Toy:2."""
    for site in ("Basel", "Bern"):
        innereye("register", packaged, "--tag", f"site={site}").done()
    return packaged


# --- list and show ----------------------------------------------------------------------------------------------------


def test_empty_registry(innereye: Invoke) -> None:
    assert innereye("models", "list").done().stdout == ""
    assert innereye("models", "list", "--json").done().json == []


def test_list(innereye: Invoke, registered: Path) -> None:
    lines = innereye("models", "list").done().stdout.splitlines()
    assert lines[0].split() == ["model", "created", "description"]
    assert [line.split()[0] for line in lines[1:]] == ["Toy:1", "Toy:2"]
    assert lines[1].endswith("Validation set Dice: 0.9000.")


def test_list_json(innereye: Invoke, registered: Path) -> None:
    first, second = innereye("models", "list", "--json").done().json

    keys = {"id", "name", "version", "registry", "description", "tags", "properties", "created"}
    assert keys == set(first) == set(second)
    assert (first["id"], first["name"], first["version"], first["registry"]) == ("Toy:1", "Toy", 1, "local")
    assert (first["tags"]["site"], second["tags"]["site"]) == ("Basel", "Bern")


def test_show(innereye: Invoke, registered: Path) -> None:
    lines = innereye("models", "show", "Toy:1").done().stdout.splitlines()

    assert lines[0].startswith("Toy:1  (local, 20")
    assert lines[1].startswith("Epoch 2 has best validation set metrics")
    assert {"  site = Basel", "  is_ensemble = False", "  epoch = 2"} <= set(lines)


def test_show_json_is_an_entry_of_the_list(innereye: Invoke, registered: Path) -> None:
    listed = innereye("models", "list", "--json").json
    assert innereye("models", "show", "Toy:1", "--json").done().json == listed[0]


def test_latest_is_the_highest_version(innereye: Invoke, registered: Path) -> None:
    assert innereye("models", "show", "Toy:latest", "--json").json["version"] == 2


@pytest.mark.parametrize("model_id", ["Toy:3", "Other:1", "Other:latest"])
def test_model_that_is_not_there(innereye: Invoke, registered: Path, model_id: str) -> None:
    innereye("models", "show", model_id).refused(5, model_id)


@pytest.mark.parametrize("text", ["Toy", "Toy:", "Toy:01", "Toy:-1", "Toy:1.0", "../Toy:1", "To y:1", "Toy:1\n", ":1"])
def test_what_is_no_model_id(innereye: Invoke, text: str) -> None:
    innereye("models", "show", text).refused(2, "is no model id; write Name:Version")


# --- download ---------------------------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in paths}


def test_download_is_the_package(innereye: Invoke, registered: Path, tmp_path: Path) -> None:
    outcome = innereye("models", "download", "Toy:1", "--output", tmp_path / "new" / "place").done()

    assert outcome.stdout == f"{tmp_path}/new/place/final_model\n"
    assert content(tmp_path / "new" / "place" / "final_model") == content(registered)


def test_download_json(innereye: Invoke, registered: Path, tmp_path: Path) -> None:
    document = innereye("models", "download", "Toy:1", "--output", tmp_path / "out", "--json").done().json
    digest = f"sha256:{sha256_of_file(registered / 'manifest.json')}"
    assert document == {"package": f"{tmp_path}/out/final_model", "digest": digest}


def test_download_of_an_ensemble(innereye: Invoke, folds: Path, toy: Path, tmp_path: Path) -> None:
    innereye("deploy", folds, "--ensemble")
    outcome = innereye("models", "download", "Toy:latest", "--output", tmp_path / "out").done()
    assert outcome.stdout == f"{tmp_path}/out/final_ensemble_model\n"


def test_download_does_not_replace_unless_told(innereye: Invoke, registered: Path, tmp_path: Path) -> None:
    mine = tmp_path / "out" / "final_model" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")

    innereye("models", "download", "Toy:1", "--output", tmp_path / "out").refused(5, "exists already", "--replace")
    assert mine.read_text() == "precious"

    innereye("models", "download", "Toy:1", "--output", tmp_path / "out", "--replace").done()
    assert not mine.exists()
    assert (tmp_path / "out" / "final_model" / "score.py").is_file()


def test_download_of_a_damaged_model_leaves_nothing(
    innereye: Invoke, registered: Path, registry: Path, tmp_path: Path
) -> None:
    (registry / "models" / "Toy" / "1" / "files" / "final_model" / "score.py").write_text("evil")

    innereye("models", "download", "Toy:1", "--output", tmp_path / "out").refused(4, "score.py has changed")

    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


REMOTE = """
    from innereye_core import hookimpl
    from innereye_core.builtin.local_registry import LocalRegistry
    from innereye_core.manifest import copy_package, open_package

    class Remote(LocalRegistry):
        name = "remote"

        def folder(self, model):
            return None

        def fetch(self, model, folder, progress):
            copy_package(open_package(LocalRegistry.folder(self, model)), folder, progress)
            {then}

    @hookimpl
    def innereye_registries():
        return [Remote]
"""
"""A registry whose files do not lie on this machine."""


def test_what_arrives_is_checked_against_what_was_registered(
    innereye: Invoke, registered: Path, install: Callable[..., str], tmp_path: Path
) -> None:
    swap = "text = (folder / 'manifest.json').read_text(); (folder / 'manifest.json').write_text(text + ' ')"
    install("acme", REMOTE.format(then=swap))

    words = ["models", "download", "Toy:1", "--output", tmp_path / "out", "--registry", "remote"]

    innereye(*words).refused(4, "Toy:1: arrived with digest sha256:", "but was registered with sha256:")
    assert not (tmp_path / "out" / "final_model").exists()


def test_model_of_a_remote_registry_is_downloaded_and_verified(
    innereye: Invoke, registered: Path, install: Callable[..., str], tmp_path: Path
) -> None:
    install("acme", REMOTE.format(then=""))
    innereye("models", "download", "Toy:2", "--output", tmp_path / "out", "--registry", "remote").done()
    assert content(tmp_path / "out" / "final_model") == content(registered)


def test_model_of_a_remote_registry_can_be_verified(
    innereye: Invoke, registered: Path, install: Callable[..., str]
) -> None:
    install("acme", REMOTE.format(then=""))
    document = innereye("models", "verify", "Toy:2", "--registry", "remote", "--json").done().json
    assert (document["package"], document["files"]) == ("Toy:2", len(content(registered)) - 1)


# --- tag --------------------------------------------------------------------------------------------------------------


def test_tag_adds_and_replaces(innereye: Invoke, registered: Path) -> None:
    tagged = innereye("models", "tag", "Toy:1", "site=Genf", "status=approved", "--json").done().json

    assert (tagged["tags"]["site"], tagged["tags"]["status"]) == ("Genf", "approved")
    assert innereye("models", "show", "Toy:1", "--json").json == tagged
    assert innereye("models", "show", "Toy:2", "--json").json["tags"]["site"] == "Bern"


def test_tag_of_what_is_not_there(innereye: Invoke, registered: Path) -> None:
    innereye("models", "tag", "Toy:7", "a=b").refused(5, "Toy:7")


# --- verify -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "id"])
def test_verify(innereye: Invoke, registered: Path, kind: str) -> None:
    reference = registered if kind == "folder" else "Toy:1"
    said = innereye("models", "verify", reference).done().stdout
    count = len(json.loads((registered / "manifest.json").read_text())["files"])
    assert said.startswith(f"{reference}: {count} files as listed, sha256:")


def test_verify_json(innereye: Invoke, packaged: Path) -> None:
    (packaged / "segmentation.nii.gz").write_text("written by somebody")

    document = innereye("models", "verify", packaged, "--json").done().json

    assert document == {
        "package": str(packaged),
        "digest": f"sha256:{sha256_of_file(packaged / 'manifest.json')}",
        "files": len(content(packaged)) - 2,
        "warnings": ["segmentation.nii.gz is not listed in manifest.json"],
    }


def test_written_segmentation_is_a_warning(innereye: Invoke, packaged: Path) -> None:
    (packaged / "segmentation.nii.gz").write_text("written by somebody")
    outcome = innereye("models", "verify", packaged)
    assert (outcome.exit_code, outcome.stderr) == (
        0,
        "warning: segmentation.nii.gz is not listed in manifest.json\n",
    )


@pytest.mark.parametrize(
    "path", ["score.py", "checkpoints/2_checkpoint.pth.tar", "InnerEye/Common/innereye_core/host.py"]
)
def test_changed_file(innereye: Invoke, packaged: Path, path: str) -> None:
    (packaged / path).write_text("x")
    innereye("models", "verify", packaged).refused(4, f"{path} has changed")


def test_missing_file(innereye: Invoke, packaged: Path) -> None:
    (packaged / "README.md").unlink()
    innereye("models", "verify", packaged).refused(4, "README.md is missing")


@pytest.mark.parametrize("path", ["InnerEye/x.txt", "checkpoints/9_checkpoint.pth.tar", "helper.py"])
def test_unlisted_code_or_checkpoint(innereye: Invoke, packaged: Path, path: str) -> None:
    (packaged / path).write_text("x")
    innereye("models", "verify", packaged).refused(4, f"{path} is not listed")


def test_damaged_model_of_the_registry(innereye: Invoke, registered: Path, registry: Path) -> None:
    (registry / "models" / "Toy" / "2" / "files" / "final_model" / "README.md").write_text("x")
    innereye("models", "verify", "Toy:1").done()
    innereye("models", "verify", "Toy:2").refused(4, "README.md has changed")


def test_verify_of_what_is_neither_folder_nor_id(innereye: Invoke) -> None:
    innereye("models", "verify", "nothing-here").refused(3, "neither a package folder nor a model id")


def test_verify_of_a_folder_that_is_no_package(innereye: Invoke, tmp_path: Path) -> None:
    innereye("models", "verify", tmp_path).refused(3, "is not a package")


# --- delete -----------------------------------------------------------------------------------------------------------


def test_deleted_version_is_gone_and_its_number_is_not_used_again(innereye: Invoke, registered: Path) -> None:
    assert innereye("models", "delete", "Toy:2").done().stdout == "deleted Toy:2\n"

    innereye("models", "show", "Toy:2").refused(5, "Toy:2 was deleted")
    assert innereye("models", "show", "Toy:latest", "--json").json["version"] == 1
    assert innereye("register", registered).stdout == "Toy:3\n"


def test_latest_cannot_be_deleted_by_that_name(innereye: Invoke, registered: Path) -> None:
    innereye("models", "delete", "Toy:latest").refused(2, "name the version to delete")


def test_delete_of_what_is_not_there(innereye: Invoke, registered: Path) -> None:
    innereye("models", "delete", "Toy:9").refused(5, "Toy:9")
