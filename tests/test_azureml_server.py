"""The loopback AzureML server answers the real SDK, in processes of its own, as the SDK expects it."""

from __future__ import annotations

import threading
import time

import pytest
from azureml_sdk import REGISTER, client, run_client, write_model
from azureml_server import Outcome
from azureml_server.fixtures import azureml as azureml

pytest.importorskip("azureml", reason="azureml-core is not installed")


def test_offline_registration_comes_back_byte_for_byte(azureml, tmp_path):
    files = write_model(tmp_path)
    azureml.workspace.page_size = 1

    shown = client(
        azureml,
        tmp_path,
        REGISTER
        + """
again = Model.register(workspace, "final_model/score.py", "Prostate")
found = Model(workspace, id="Prostate:1")
where = found.download("downloaded")
show(ids=[model.id, again.id], where=where, tags=found.tags, properties=found.properties, text=found.description,
     listed=[other.id for other in Model.list(workspace)], latest=[m.id for m in Model.list(workspace, latest=True)],
     by_tag=[m.id for m in Model.list(workspace, tags=[["site", "A"]])],
     created=found.created_time.isoformat(), missing=failure(lambda: Model(workspace, id="Prostate:7")))
""",
    )

    downloaded = {
        path.relative_to(tmp_path / "downloaded").as_posix(): path.read_bytes()
        for path in (tmp_path / "downloaded").rglob("*")
        if path.is_file()
    }
    assert downloaded == files
    assert azureml.workspace.model_files("Prostate:1") == files
    assert azureml.workspace.model_files("Prostate:2") == {"score.py": files["final_model/score.py"]}
    assert shown["ids"] == ["Prostate:1", "Prostate:2"]
    assert shown["listed"] == ["Prostate:2", "Prostate:1"]
    assert (shown["latest"], shown["by_tag"]) == (["Prostate:2"], ["Prostate:1"])
    assert (shown["tags"], shown["properties"], shown["text"]) == ({"site": "A"}, {"epoch": "3"}, "x")
    assert shown["missing"][0] == "WebserviceException"
    assert "ModelNotFound:" in shown["missing"][1]


def test_tags_change_properties_do_not_and_versions_are_never_used_again(azureml, tmp_path):
    write_model(tmp_path)

    shown = client(
        azureml,
        tmp_path,
        REGISTER
        + """
model.add_tags({"state": "clinical"})
model.remove_tags(["site"])
model.add_properties({"best": "yes"})
model.update(description="y")
changed = Model(workspace, id="Prostate:1")
model.properties.clear()
overwritten = failure(lambda: model.add_properties({"epoch": "4"}))
changed.delete()
gone = failure(lambda: Model(workspace, id="Prostate:1"))
second = Model.register(workspace, "final_model", "Prostate")
show(tags=changed.tags, properties=changed.properties, text=changed.description, gone=gone, second=second.id,
     twice=failure(changed.delete), overwritten=overwritten,
     bad_name=failure(lambda: Model.register(workspace, "final_model", "no spaces")))
""",
    )

    assert shown["tags"] == {"state": "clinical"}
    assert shown["properties"] == {"epoch": "3", "best": "yes"}
    assert "Response Code: 400" in shown["overwritten"][1]
    assert shown["text"] == "y"
    assert "ModelNotFound:" in shown["gone"][1]
    assert "ModelNotFound:" in shown["twice"][1]
    assert shown["second"] == "Prostate:2"
    assert shown["bad_name"] is not None
    assert [model.model_id for model in azureml.workspace.models()] == ["Prostate:2"]


def test_large_files_are_read_in_ranges_and_the_largest_written_in_blocks(azureml, tmp_path):
    (tmp_path / "final_model").mkdir()
    contents = {f"{megabytes}.bin": bytes(range(256)) * (megabytes * 4096) for megabytes in (5, 80)}
    for name, content in contents.items():
        (tmp_path / "final_model" / name).write_bytes(content)

    client(azureml, tmp_path, REGISTER + 'model.download("downloaded"); show()')

    for name, content in contents.items():
        assert (tmp_path / "downloaded" / "final_model" / name).read_bytes() == content
    ranges = {name: [read.status for read in azureml.asked("GET", name)] for name in contents}
    assert ranges["5.bin"] == [206]
    assert set(ranges["80.bin"]) == {206}
    assert len(ranges["80.bin"]) > 1
    (blocks,) = azureml.asked("PUT", "comp=blocklist")
    assert "80.bin" in blocks.request.url


def test_a_service_principal_logs_in_with_its_secret_alone(azureml, tmp_path):
    principal = azureml.workspace.identity.service_principal
    log_in = """
def log_in(secret):
    auth = ServicePrincipalAuthentication(sys.argv[2], sys.argv[3], secret, cloud="AzureCloud")
    return Workspace.from_config("config.json", auth=auth)
show(models=[m.id for m in Model.list(log_in(sys.argv[4]))], wrong=failure(lambda: log_in("guess")))
"""

    shown = client(azureml, tmp_path, log_in, principal.tenant_id, principal.client_id, principal.secret)

    assert shown["models"] == []
    assert "AADSTS7000215" in shown["wrong"][1]
    assert azureml.where_sent(principal.secret) == []


def test_only_tokens_that_the_server_issued_open_it(azureml, tmp_path):
    azureml.workspace.add_run("train_1")
    revoked = azureml.workspace.identity.issue("aad")
    azureml.workspace.identity.revoke(revoked)
    refused = "show(error=failure(lambda: open_workspace(sys.argv[2])), code=sys.argv[2].count('.'))"

    unknown = client(azureml, tmp_path, refused, revoked)
    run_token = client(azureml, tmp_path, refused, azureml.run_token("train_1"))

    assert unknown["error"] is not None
    assert run_token["error"] is not None
    assert {recorded.status for recorded in azureml.requests} == {401}


def test_a_blob_opens_only_with_the_query_that_was_issued_for_it(azureml, tmp_path):
    azureml.workspace.add_run("train_1", artifacts={"outputs/a.txt": b"a", "outputs/b.txt": b"b"})
    code = """
import requests
from azureml._restclient.artifacts_client import ArtifactsClient
artifacts = ArtifactsClient(open_workspace(sys.argv[1]).service_context)
uri = artifacts.get_artifact_uri("ExperimentRun", "dcid.train_1", "outputs/a.txt")
bare, query = uri.split("?")
other = bare.replace("a.txt", "b.txt")
show(statuses=[requests.get(address).status_code for address in (uri, bare, f"{other}?{query}")],
     write=requests.put(uri, data=b"x", headers={"x-ms-blob-type": "BlockBlob"}).status_code)
"""

    shown = client(azureml, tmp_path, code)

    assert shown == {"statuses": [200, 403, 403], "write": 403}
    assert azureml.workspace.run_artifacts("train_1") == {"outputs/a.txt": b"a", "outputs/b.txt": b"b"}


def test_a_job_uploads_to_its_run_and_registers_from_there(azureml, tmp_path):
    parent = azureml.workspace.add_run("HD_1", run_type="hyperdrive", tags={"cohort": "P"})
    azureml.workspace.add_run("HD_1_0", parent=parent, tags={"cross_validation_split_index": "0"})
    files = write_model(tmp_path)

    shown = client(
        azureml,
        tmp_path,
        """
run = Run.get_context(allow_offline=False)
run.upload_folder("final_model", "final_model")
model = run.register_model("Prostate", "final_model", tags=run.get_tags(), properties={"run": run.id})
run.tag("model_id", model.id)
run.parent.set_tags({"ensemble": "none"})
run.add_properties({"checked": "yes"})
twice = failure(lambda: run.upload_folder("final_model", "final_model"))
show(id=run.id, parent=[run.parent.id, run.parent.type, run.parent.get_tags()], experiment=run.experiment.name,
     files=sorted(run.get_file_names()), model_run=model.run_id, linked=model.run.id, twice=twice,
     nothing=failure(lambda: run.register_model("Other", "no_such_folder")))
""",
        run="HD_1_0",
    )

    assert shown["id"] == "HD_1_0"
    assert shown["parent"] == ["HD_1", "hyperdrive", {"cohort": "P", "ensemble": "none"}]
    assert shown["experiment"] == "prostate"
    assert shown["files"] == sorted(files)
    assert (shown["model_run"], shown["linked"]) == ("HD_1_0", "HD_1_0")
    assert shown["twice"][0] == "AzureMLAggregatedException"
    assert "already exists" in shown["twice"][1]
    assert shown["nothing"][0] == "ModelPathNotFoundException"
    (model,) = azureml.workspace.models()
    assert (model.run_id, model.experiment, model.tags) == ("HD_1_0", "prostate", {"cross_validation_split_index": "0"})
    assert azureml.workspace.model_files(model) == files
    assert azureml.workspace.run("HD_1_0").tags["model_id"] == "Prostate:1"
    assert azureml.workspace.run("HD_1_0").properties["checked"] == "yes"


def test_folds_finish_in_any_order_and_are_found_page_by_page(azureml, tmp_path):
    azureml.workspace.page_size = 2
    parent, folds = azureml.workspace.add_hyperdrive("HD_2", 5)
    folds[3].later("Completed", polls=1, action=lambda: folds[3].tags.update(model_id="Prostate:4"))
    folds[0].later("Failed", polls=2)
    folds[1].later("Canceled", seconds=0.0)

    shown = client(
        azureml,
        tmp_path,
        """
workspace = open_workspace(sys.argv[1])
parent = Run.get(workspace, "HD_2")
def look():
    return {run.id: run.get_status() for run in parent.get_children() if "cross_validation_split_index" in run.tags}
first, second, third = look(), look(), look()
tagged = [run.id for run in parent.get_children(tags={"model_id": "Prostate:4"})]
below = sorted(run.id for run in parent.get_children(recursive=True))
in_experiment = [run.id for run in Experiment(workspace, "prostate").get_runs()]
by_tag = [run.id for run in Experiment(workspace, "prostate").get_runs(tags={"cross_validation_split_index": "2"},
                                                                         include_children=True)]
show(first=first, third=third, tagged=tagged, below=below, in_experiment=in_experiment, by_tag=by_tag, type=parent.type,
     missing=failure(lambda: Run.get(workspace, "HD_3"))[0])
""",
    )

    running = {f"HD_2_{fold}": "Running" for fold in range(5)}
    assert shown["first"] == running | {"HD_2_1": "Canceled", "HD_2_3": "Completed"}
    assert list(shown["first"]) == ["HD_2_4", "HD_2_3", "HD_2_2", "HD_2_1", "HD_2_0"]
    assert shown["third"] == running | {"HD_2_1": "Canceled", "HD_2_3": "Completed", "HD_2_0": "Failed"}
    assert shown["tagged"] == ["HD_2_3"]
    assert shown["below"] == sorted([*running, "HD_2_preparation"])
    assert shown["in_experiment"] == ["HD_2"]
    assert shown["by_tag"] == ["HD_2_2"]
    assert shown["type"] == "hyperdrive"
    assert shown["missing"] == "ServiceException"
    assert parent.status == "Running"


def test_a_job_changes_its_runs_and_renews_its_token(azureml, tmp_path):
    azureml.workspace.add_run("train_1")

    shown = client(
        azureml,
        tmp_path,
        """
run = Run.get_context(allow_offline=False)
good, bad = run.child_run("good"), run.child_run("bad")
good.set_tags({"a": "1", "b": "2"})
good.remove_tags(["a"])
good.complete()
bad.fail("the disk is full")
show(states=[child.get_status() for child in (good, bad)], tags=good.get_tags(), parent=good.parent.id,
     error=bad.get_details()["error"]["error"]["message"], experiment=Experiment(run.experiment.workspace, "new").id)
""",
        run="train_1",
        variables={"AZUREML_RUN_TOKEN_EXPIRY": str(int(time.time()) + 60)},
    )

    assert shown["states"] == ["Completed", "Failed"]
    assert (shown["tags"], shown["parent"]) == ({"b": "2"}, "train_1")
    assert shown["error"] == "the disk is full"
    assert shown["experiment"] == azureml.workspace.experiments["new"]
    assert len(azureml.asked("GET", "/runs/train_1/token")) == 1


SUBMIT = """
workspace = open_workspace(sys.argv[1])
environment = Environment.from_conda_specification("scoring", "environment.yml")
environment.environment_variables = {"GREETING": "hello"}
def submit(compute="gpu-cluster", **options):
    config = ScriptRunConfig("code", "score.py", ["--case", "7"], compute_target=compute, environment=environment)
    return Experiment(workspace, "scoring").submit(config, **options)
"""


@pytest.fixture
def code_folder(tmp_path):
    (tmp_path / "environment.yml").write_text("name: scoring\ndependencies: [python=3.11]\n")
    (tmp_path / "code" / "deep").mkdir(parents=True)
    (tmp_path / "code" / "deep" / "data.txt").write_text("patient")
    (tmp_path / "code" / ".amlignore").write_text("*.secret\n")
    (tmp_path / "code" / "token.secret").write_text("s3cret")
    (tmp_path / "code" / "score.py").write_text(
        "import os, sys, pathlib\n"
        "from azureml.core import Run\n"
        "run = Run.get_context(allow_offline=False)\n"
        "print(os.environ['GREETING'], pathlib.Path('deep/data.txt').read_text(), flush=True)\n"
        "os.makedirs('outputs', exist_ok=True)\n"
        "pathlib.Path('outputs/result.txt').write_text(' '.join(sys.argv[1:]))\n"
        "run.tag('scored', 'yes')\n"
        "sys.exit(int(os.environ.get('EXIT', '0')))\n"
    )
    return tmp_path


def test_a_submitted_script_runs_and_leaves_logs_and_outputs(azureml, code_folder):
    azureml.workspace.on_submit = azureml.run_job_locally

    shown = client(
        azureml,
        code_folder,
        SUBMIT
        + """
from azureml.core.compute import ComputeTarget
clusters = [workspace.compute_targets["gpu-cluster"].type, ComputeTarget(workspace, "gpu-cluster").vm_size]
run = submit()
run.wait_for_completion(show_output=True)
run.download_files(prefix="outputs", output_directory="downloaded")
Path("code/deep/data.txt").write_text("another patient")
environment.environment_variables["EXIT"] = "3"
failed = submit()
error = failure(failed.wait_for_completion)
show(status=run.get_status(), clusters=clusters, tags=run.get_tags(), logs=sorted(run.get_details()["logFiles"]),
     log=run.get_details_with_logs()["logFiles"]["user_logs/std_log.txt"], failed=[failed.get_status(), *error],
     no_cluster=failure(lambda: submit("no-such-cluster")))
""",
    )

    assert shown["status"] == "Completed"
    assert shown["clusters"] == ["AmlCompute", "STANDARD_NC6S_V3"]
    assert shown["tags"] == {"scored": "yes"}
    assert shown["logs"] == ["user_logs/std_log.txt"]
    assert shown["log"] == "hello patient\n"
    assert (code_folder / "downloaded" / "outputs" / "result.txt").read_text() == "--case 7"
    assert shown["failed"][:2] == ["Failed", "ActivityFailedException"]
    assert "status code 3" in shown["failed"][2]
    assert "no-such-cluster" in shown["no_cluster"][1]
    first, second = azureml.workspace.jobs
    assert set(first.files) == {".amlignore", "score.py", "deep/data.txt"}
    assert second.files["deep/data.txt"] == b"another patient"
    assert len(azureml.asked("PUT", "/snapshots/")) == 4, "only the changed file was sent again"
    assert azureml.where_sent("s3cret") == []


def test_without_a_callback_a_job_goes_through_its_states_as_it_is_asked(azureml, code_folder):
    shown = client(
        azureml,
        code_folder,
        SUBMIT
        + """
run = submit()
states = [run.get_status() for _ in range(4)]
canceled = submit()
canceled.cancel()
show(states=states, canceled=canceled.get_status())
""",
    )

    assert shown == {"states": ["Queued", "Running", "Completed", "Completed"], "canceled": "Canceled"}


def test_environments_have_versions(azureml, code_folder):
    shown = client(
        azureml,
        code_folder,
        SUBMIT
        + """
first = environment.register(workspace)
same = environment.register(workspace)
environment.environment_variables["MORE"] = "1"
second = environment.register(workspace)
found = Environment.get(workspace, "scoring")
older = Environment.get(workspace, "scoring", "1")
show(versions=[environment.version for environment in (first, same, second, found, older)],
     dependencies=list(found.python.conda_dependencies.conda_packages), variables=found.environment_variables,
     listed=sorted(Environment.list(workspace)), missing=failure(lambda: Environment.get(workspace, "other")))
""",
    )

    assert shown["versions"] == ["1", "1", "2", "2", "1"]
    assert shown["dependencies"] == ["python=3.11"]
    assert shown["variables"] == {"GREETING": "hello", "MORE": "1"}
    assert shown["listed"] == ["scoring"]
    assert "other" in shown["missing"][1]


def test_clients_may_run_at_the_same_time(azureml, tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    outcomes: list[Outcome] = []
    for folder in folders:
        folder.mkdir()
        write_model(folder)
    threads = [
        threading.Thread(target=lambda folder=folder: outcomes.append(run_client(azureml, folder, REGISTER)))
        for folder in folders
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [outcome.exit_code for outcome in outcomes] == [0, 0], outcomes
    assert {model.model_id for model in azureml.workspace.models()} == {"Prostate:1", "Prostate:2"}
