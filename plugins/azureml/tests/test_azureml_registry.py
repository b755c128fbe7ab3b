"""The registry ``azureml``, driven by the real SDK against a loopback AzureML."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from azureml_clients import Client, Refused, contents, write_package
from azureml_server import AzureMLServer, Run

from innereye_core.model import Package

Job = Callable[[Run], Client]


# --- outside jobs -----------------------------------------------------------------------------------------------------


def test_a_package_comes_back_byte_for_byte(outside: Client, package: Package, tmp_path: Path) -> None:
    outside("register", folder=package.folder, name="Bytes")

    outside("fetch", name="Bytes", folder=tmp_path / "fetched")

    assert contents(tmp_path / "fetched") == contents(package.folder)


def test_the_files_keep_their_top_folder(service: AzureMLServer, outside: Client, package: Package) -> None:
    model = outside("register", folder=package.folder, name="Folder")

    files = service.workspace.model_files(model["id"])

    expected = {f"final_model/{path}": content for path, content in contents(package.folder).items()}
    assert files == expected
    assert all(artifact.startswith("LocalUpload/") for artifact in service.workspace.model(model["id"]).asset.prefixes)


def test_what_the_service_has_is_what_was_said(service: AzureMLServer, outside: Client, package: Package) -> None:
    said = {"tags": {"site": "Zürich"}, "properties": {"epoch": "3"}, "description": "Epoch 3."}

    model = outside("register", folder=package.folder, name="Said", **said)

    kept = service.workspace.model("Said:1")
    assert kept.tags == {"site": "Zürich"}
    assert kept.properties == {
        "epoch": "3",
        "package_digest": package.digest,
        "package_folder": "final_model",
    }
    assert (model["id"], model["version"], model["registry"]) == ("Said:1", 1, "azureml")
    assert model == {**outside("get", name="Said"), "progress": model["progress"]}


def test_the_description_says_who_registered_it_outside(outside: Client, package: Package) -> None:
    model = outside("register", folder=package.folder, name="Signed", description="Epoch 3.")

    assert model["description"].startswith(f"Epoch 3. Registered outside AzureML by {getpass.getuser()} at 20")
    assert model["description"].endswith(" UTC.")


def test_times_are_utc(outside: Client, package: Package) -> None:
    created = datetime.fromisoformat(outside("register", folder=package.folder, name="Time")["created"])

    offset = created.utcoffset()
    assert offset is not None
    assert not offset


def test_progress_is_told_in_mebibytes(outside: Client, tmp_path: Path) -> None:
    package = write_package(tmp_path, files={"a.bin": bytes(3 << 20), "b.txt": b"b"})

    model = outside("register", folder=package.folder, name="Progress")

    assert model["progress"] == [{"description": "upload final_model (MiB)", "total": 4, "done": 4}]
    assert outside("fetch", name="Progress", folder=tmp_path / "fetched") == [
        {"description": "download Progress:1 (MiB)", "total": 4, "done": 4}
    ]


def test_a_file_of_several_blocks(service: AzureMLServer, outside: Client, tmp_path: Path) -> None:
    content = bytes(range(256)) * (20 << 12) + b"end"
    package = write_package(tmp_path, files={"checkpoints/1.pth": content})

    outside("register", folder=package.folder, name="Blocks")
    outside("fetch", name="Blocks", folder=tmp_path / "fetched")

    assert (tmp_path / "fetched/checkpoints/1.pth").read_bytes() == content
    assert len(service.asked("PUT", "1.pth?comp=block&")) == 3
    assert len(service.asked("GET", "1.pth?")) == 3


def test_more_files_than_the_service_makes_at_once(outside: Client, tmp_path: Path) -> None:
    files = {f"code/module_{number}.py": f"{number}\n".encode() for number in range(60)}
    package = write_package(tmp_path, files=files)

    outside("register", folder=package.folder, name="Many")
    outside("fetch", name="Many", folder=tmp_path / "fetched")

    assert contents(tmp_path / "fetched") == contents(package.folder)


def test_a_checkpoint_of_90_megabytes(outside: Client, tmp_path: Path) -> None:
    content = bytes(range(250)) * 360_000
    package = write_package(tmp_path, files={"checkpoints/1.pth": content})

    outside("register", folder=package.folder, name="Large")
    outside("fetch", name="Large", folder=tmp_path / "fetched")

    assert (tmp_path / "fetched/checkpoints/1.pth").read_bytes() == content


def test_only_what_the_manifest_lists_is_uploaded(service: AzureMLServer, outside: Client, package: Package) -> None:
    (package.folder / "segmentation.nii.gz").write_bytes(b"written by score.py")

    outside("register", folder=package.folder, name="Listed")

    assert "final_model/segmentation.nii.gz" not in service.workspace.model_files("Listed:1")


@pytest.mark.parametrize("damage", ["change", "remove", "link"])
def test_a_package_that_has_changed_is_not_registered(
    service: AzureMLServer, outside: Client, package: Package, damage: str
) -> None:
    path = package.folder / "checkpoints/3_checkpoint.pth.tar"
    path.unlink()
    if damage == "change":
        path.write_bytes(b"WEIGHTS" * 1000)
    elif damage == "link":
        path.symlink_to("/etc/hostname")

    with pytest.raises(
        Refused, match=r"is not the package that was made: checkpoints/3_checkpoint\.pth\.tar"
    ) as refused:
        outside("register", folder=package.folder, name="Damaged")

    assert refused.value.exit_code == 4
    assert service.workspace.models("Damaged") == []


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"name": "_Prostate"}, "'_Prostate' cannot be the name of a model"),
        ({"tags": {"a" * 101: "b"}}, "the name has 101 characters; AzureML takes 100"),
        ({"tags": {"a": "b" * 1001}}, "tag 'a': the value has 1001 characters; AzureML takes 1000"),
        ({"tags": {str(number): "" for number in range(51)}}, "51 tag entries; AzureML takes 50"),
        ({"properties": {"a=b": "c"}}, "property 'a=b': a name must be a text without '='"),
        ({"description": "d" * 4990}, "AzureML takes 5000: shorten it"),
    ],
)
def test_what_azureml_would_refuse_is_refused_before_anything_is_uploaded(
    service: AzureMLServer, outside: Client, package: Package, said: dict[str, Any], message: str
) -> None:
    asked = len(service.requests)

    with pytest.raises(Refused, match=message) as refused:
        outside("register", folder=package.folder, **said)

    assert refused.value.exit_code == 2
    assert len(service.requests) == asked


# --- finding, tagging, deleting ---------------------------------------------------------------------------------------


def test_versions_are_integers_of_the_service(outside: Client, package: Package) -> None:
    ids = [outside("register", folder=package.folder, name="Versions")["id"] for _ in range(2)]

    assert ids == ["Versions:1", "Versions:2"]
    assert outside("get", name="Versions")["version"] == 2
    assert outside("get", name="Versions", version=1)["version"] == 1


def test_latest_is_the_highest_that_is_not_deleted(outside: Client, package: Package) -> None:
    for _ in range(3):
        outside("register", folder=package.folder, name="Latest")

    outside("delete", name="Latest", version=3)

    assert outside("get", name="Latest")["version"] == 2
    assert outside("register", folder=package.folder, name="Latest")["version"] == 4


def test_models_are_listed_by_name_and_version(outside: Client, package: Package) -> None:
    for name in ("ListB", "ListA", "ListB"):
        outside("register", folder=package.folder, name=name)

    ids = [model["id"] for model in outside("models") if model["name"].startswith("List") and len(model["name"]) == 5]

    assert ids == ["ListA:1", "ListB:1", "ListB:2"]


def test_a_long_list_comes_in_pages(service: AzureMLServer, outside: Client, package: Package) -> None:
    for _ in range(5):
        outside("register", folder=package.folder, name="Pages")
    service.workspace.page_size = 2
    try:
        versions = [model["version"] for model in outside("models") if model["name"] == "Pages"]
        latest = outside("get", name="Pages")["version"]
    finally:
        service.workspace.page_size = 100

    assert versions == [1, 2, 3, 4, 5]
    assert latest == 5


def test_tags_are_added_and_replaced(service: AzureMLServer, outside: Client, package: Package) -> None:
    outside("register", folder=package.folder, name="Tagged", tags={"stage": "test", "kept": "yes"})

    tagged = outside("tag", name="Tagged", tags={"stage": "clinic", "new": "a=b"})

    assert tagged["tags"] == {"stage": "clinic", "kept": "yes", "new": "a=b"}
    assert service.workspace.model("Tagged:1").tags == tagged["tags"]


def test_a_tag_that_azureml_does_not_take_is_refused(outside: Client, package: Package) -> None:
    outside("register", folder=package.folder, name="LongTag")

    with pytest.raises(Refused, match="the value has 1001 characters") as refused:
        outside("tag", name="LongTag", tags={"a": "b" * 1001})

    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("call", "arguments", "what"),
    [
        ("get", {"name": "Nothing"}, "Nothing:latest"),
        ("get", {"name": "Nothing", "version": 7}, "Nothing:7"),
        ("get", {"name": "no/name", "version": 1}, "no/name:1"),
        ("delete", {"name": "Nothing", "version": 7}, "Nothing:7"),
        ("delete_missing", {"name": "Nothing", "version": 7}, "Nothing:7"),
    ],
)
def test_a_model_that_is_not_there(outside: Client, call: str, arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(Refused, match=f"^{what} is not in AzureML; see 'innereye models list") as refused:
        outside(call, **arguments)

    assert refused.value.exit_code == 5


REGISTER_SOMETHING_ELSE = """
import sys
from pathlib import Path
from azureml.core import Model, Workspace
from azureml.core.authentication import TokenAuthentication
Path("final_model").mkdir()
Path("final_model/model.pkl").touch()
workspace = Workspace.from_config(auth=TokenAuthentication(lambda audience: sys.argv[1], cloud="AzureCloud"))
Model.register(workspace, "final_model", "Foreign", properties={"package_digest": "of something else"})
"""


def test_models_of_others_are_left_alone(
    service: AzureMLServer, outside: Client, package: Package, tmp_path: Path
) -> None:
    service.write_config(tmp_path)
    service.python(REGISTER_SOMETHING_ELSE, service.token, cwd=tmp_path)

    assert "Foreign:1" not in [model["id"] for model in outside("models")]
    calls: dict[str, dict[str, Any]] = {"get": {}, "fetch": {"folder": tmp_path / "got"}, "tag": {"tags": {"a": "b"}}}
    for call, arguments in calls.items():
        with pytest.raises(Refused, match="Foreign:1 is in AzureML, but InnerEye Deploy did not register it"):
            outside(call, name="Foreign", **arguments)


def test_a_model_whose_files_are_gone(
    service: AzureMLServer, outside: Client, package: Package, tmp_path: Path
) -> None:
    outside("register", folder=package.folder, name="Gone")
    origin, container, folder = service.workspace.model("Gone:1").asset.prefixes[0].split("/")
    service.workspace.artifacts.delete(origin, container, f"{folder}/environment.yml", with_content=True)

    with pytest.raises(Refused, match=r"Gone:1: .*/final_model/environment.yml is not there any more") as refused:
        outside("fetch", name="Gone", folder=tmp_path / "fetched")

    assert refused.value.exit_code == 5


def test_a_download_that_ends_early_is_no_package(
    service: AzureMLServer, outside: Client, package: Package, tmp_path: Path
) -> None:
    from azureml_server import Fault

    outside("register", folder=package.folder, name="Partial")
    service.faults.add(Fault(path="3_checkpoint", method="GET", truncate=0.5, times=None))

    with pytest.raises(Refused) as refused:
        outside("fetch", name="Partial", folder=tmp_path / "fetched")

    assert refused.value.exit_code in (4, 5)


# --- inside jobs ------------------------------------------------------------------------------------------------------


def test_a_model_of_a_run_is_linked_to_it(service: AzureMLServer, job: Job, package: Package) -> None:
    run = service.workspace.add_run("linked_run")

    model = job(run)("register", folder=package.folder, name="Linked", of="run")

    kept = service.workspace.model(model["id"])
    assert kept.run_id == "linked_run"
    assert kept.asset.run_id == "linked_run"
    assert kept.document["experimentName"] == "prostate"
    assert service.workspace.run_artifacts(run) == {
        f"final_model/{path}": content for path, content in contents(package.folder).items()
    }
    assert model["description"] == "Epoch 3."


def test_a_package_that_is_of_no_run_is_linked_to_the_job(
    service: AzureMLServer, job: Job, package: Package, tmp_path: Path
) -> None:
    run = service.workspace.add_run("some_job")

    model = job(run)("register", folder=package.folder, name="OfNoRun")
    job(run)("fetch", name="OfNoRun", folder=tmp_path / "fetched")

    assert service.workspace.model(model["id"]).run_id == "some_job"
    assert contents(tmp_path / "fetched") == contents(package.folder)


def test_the_ensemble_is_linked_to_the_parent(service: AzureMLServer, job: Job, tmp_path: Path) -> None:
    parent, children = service.workspace.add_hyperdrive("hyperdrive_of_ensemble", 2)
    package = write_package(tmp_path, "final_ensemble_model")

    model = job(children[0])("register", folder=package.folder, name="Ensemble", of="parent")

    assert service.workspace.model(model["id"]).run_id == parent.run_id
    assert model["folder_name"] == "final_ensemble_model"
    assert "final_ensemble_model/score.py" in service.workspace.run_artifacts(parent)
    assert service.workspace.run_artifacts(children[0]) == {}


def test_files_that_are_there_already_stay_as_they_are(
    service: AzureMLServer, job: Job, package: Package, tmp_path: Path
) -> None:
    """A job that was restarted, or that deploys twice: files of runs cannot be overwritten."""
    left = {"final_model/score.py": b"of an attempt that died", "deployment_2/final_model/x": b"of another"}
    run = service.workspace.add_run("restarted_run", artifacts=left)

    ids = [job(run)("register", folder=package.folder, name="Restarted", of="run")["id"] for _ in range(2)]

    expected = {f"final_model/{path}": content for path, content in contents(package.folder).items()}
    assert [service.workspace.model_files(model_id) for model_id in ids] == [expected, expected]
    kept = service.workspace.run_artifacts(run)
    assert {path: kept[path] for path in left} == left
    assert {path.partition("/")[0] for path in kept} == {"final_model", "deployment_2", "deployment_3", "deployment_4"}
    job(run)("fetch", name="Restarted", version=2, folder=tmp_path / "fetched")
    assert contents(tmp_path / "fetched") == contents(package.folder)


def test_a_folder_that_only_begins_with_the_same_letters_does_not_end_up_in_the_model(
    service: AzureMLServer, job: Job, package: Package
) -> None:
    run = service.workspace.add_run("run_with_similar_folder", artifacts={"final_model_old/score.py": b"old"})

    model = job(run)("register", folder=package.folder, name="Similar", of="run")

    assert set(service.workspace.model_files(model["id"])) == {
        f"final_model/{path}" for path in contents(package.folder)
    }


def test_a_job_may_register_in_another_place(
    service: AzureMLServer, job: Job, package: Package, tmp_path: Path
) -> None:
    """Naming the job's own workspace is no other place, so that its login is enough."""
    run = service.workspace.add_run("run_with_place")

    model = job(run)("register", folder=package.folder, name="Placed", place=service.write_config(tmp_path))

    assert service.workspace.model(model["id"]).run_id == "run_with_place"
