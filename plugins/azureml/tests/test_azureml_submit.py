"""``innereye azureml submit``: what is refused before anything is sent, what is sent, and what comes back."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from scoring_packages import refused, write_image, write_scoring_package

from innereye_core.manifest import open_package

PATIENT = "Doe_Jane_1950"
EARLIER_PATIENT = "Roe_Richard_1949"
PASSWORD = "hunter2"
REPOSITORY = f"https://user:{PASSWORD}@git.example/private.git"
Submit = Callable[..., Any]


# --- a study, and how to submit ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package in which a segmentation of an earlier patient lies."""
    folder = write_scoring_package(tmp_path_factory.mktemp("made"))
    (folder / f"{EARLIER_PATIENT}.nii.gz").write_bytes(b"written by an earlier call of score.py")
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two channels, in files that are named after the patient."""
    folder = tmp_path_factory.mktemp("study") / PATIENT
    folder.mkdir()
    return [write_image(folder / f"{PATIENT}_{number}.nii.gz", number) for number in (1, 2)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def completes(service: Any, run: Any, segmentation: bytes, log: str = "") -> None:
    service.workspace.add_artifact(run, "outputs/segmentation.nii.gz", segmentation)
    service.workspace.add_artifact(run, "user_logs/std_log.txt", log.encode())
    run.set_status("Completed")


def variables(service: Any, **others: str) -> dict[str, str]:
    return {"INNEREYE_AZUREML_TOKEN": service.token, "OMP_NUM_THREADS": "1", **others}


@pytest.fixture
def submit(service: Any, study: list[Path], tmp_path: Path) -> Iterator[Submit]:
    """Submit the study from an empty folder; ``job`` is what becomes of it, instead of really running."""
    service.write_config(tmp_path)

    def call(model: Path, *options: object, images: list[Path] = study, job: Callable[[Any], object] | None = None):
        service.workspace.on_submit = job
        arguments = ("azureml", "submit", model, *images, *(options or ("--compute", "gpu-cluster")))
        return service.innereye(*arguments, cwd=tmp_path, variables=variables(service))

    yield call
    service.workspace.on_submit = None


# --- a job that really runs -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """A study that was scored as a job, by the package's own score.py in a process of its own."""

    outcome: Any
    job: Any
    folder: Path
    package: dict[str, bytes]


@pytest.fixture(scope="module")
def scored(service: Any, package_folder: Path, study: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """Submitted by model id, while temporary files lie in a Git repository, which the SDK would tell about."""
    from innereye_core import RegistrationOptions, register

    folder, registry = tmp_path_factory.mktemp("cwd"), tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("INNEREYE_REGISTRY_DIR", str(registry))
        register(package_folder, RegistrationOptions(registry="local"))

    repository = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "--quiet", repository], check=True)
    subprocess.run(["git", "-C", repository, "remote", "add", "origin", REPOSITORY], check=True)
    service.workspace.on_submit = service.run_job_locally
    service.write_config(folder)
    outcome = service.innereye(
        *("azureml", "submit", "Ball:1", *study, "--compute", "gpu-cluster", "--download", "results"),
        *("--registry", "local", "--json"),
        cwd=folder,
        variables=variables(service, INNEREYE_REGISTRY_DIR=str(registry), TMPDIR=str(repository)),
    )
    service.workspace.on_submit = None
    assert outcome.exit_code == 0, outcome
    package = files(package_folder)
    del package[f"{EARLIER_PATIENT}.nii.gz"]
    return Scored(outcome, service.workspace.jobs[-1], folder, package)


def test_job_and_local_scoring_give_the_same_file(scored, package_folder, study, tmp_path):
    local = tmp_path / "local.nii.gz"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "innereye_core", "score", str(package_folder), *map(str, study)]
    subprocess.run([*command, "--output", str(local)], env=environment, check=True, capture_output=True)

    assert files(scored.folder / "results") == {"segmentation.nii.gz": local.read_bytes()}
    assert len(np.unique(nibabel.load(local).get_fdata())) == 2


def test_json_says_which_run_it_was_and_where_the_segmentation_is(scored):
    run = scored.job.run

    document = json.loads(scored.outcome.stdout)

    assert document == {
        "run": run.run_id,
        "status": "Completed",
        "segmentation": "results/segmentation.nii.gz",
        "portal_url": document["portal_url"],
    }
    assert document["portal_url"].startswith(f"https://ml.azure.com/runs/{run.run_id}?")


def test_states_are_told_as_they_change(scored):
    run = scored.job.run.run_id
    told = [line.removeprefix(f"run {run}: ") for line in scored.outcome.stderr.splitlines() if run in line]

    assert told[0].startswith("sending Ball:1 and the images (")
    assert told[1].startswith("https://ml.azure.com/runs/")
    assert told[-2:] == ["Running", "Completed"]


def test_what_the_job_says_about_the_images_is_told_here_too(scored):
    assert "unchecked: orientation: " in scored.outcome.stderr


def test_exactly_the_package_and_the_images_are_sent(scored, study):
    sent = scored.job.files
    images = {path: content for path, content in sent.items() if path.startswith("images/")}
    package = {path.removeprefix("final_model/"): content for path, content in sent.items() if path not in images}

    assert package == scored.package
    assert {"ballnets/.amlignore", "ballnets/docs/Übersicht.txt", "ballnets/old.pyc"} < package.keys()
    assert list(images) == ["images/0_ct.nii.gz", "images/1_T2_weighted.nii.gz"]
    for path, content in zip(study, images.values(), strict=True):
        assert gzip.decompress(content) == gzip.decompress(path.read_bytes())


def test_job_runs_the_packages_own_script_on_the_compute_in_its_own_environment(scored):
    configuration = scored.job.configuration

    assert scored.job.script == "final_model/score.py"
    assert scored.job.arguments[:2] == ["images/0_ct.nii.gz", "images/1_T2_weighted.nii.gz"]
    assert configuration["target"] == "gpu-cluster"
    assert scored.job.run.experiment == "innereye-scoring"
    assert scored.job.environment["name"] == "innereye-Ball"
    assert "python=3.11" in scored.job.environment["python"]["condaDependencies"]["dependencies"]
    assert "cuda" in scored.job.environment["docker"]["baseImage"]  # the cluster has GPUs


def test_run_is_tagged_with_the_model_and_nothing_about_the_patient(scored, package_folder):
    assert scored.job.run.tags == {"model_id": "Ball:1", "package_digest": open_package(package_folder).digest}


def test_names_of_the_images_and_secrets_stay_here(scored, service):
    for secret in (PATIENT, PASSWORD, service.token):
        assert service.where_sent(secret) == []
    assert service.token not in scored.outcome.stdout + scored.outcome.stderr


# --- what comes back --------------------------------------------------------------------------------------------------


def test_earlier_segmentations_are_kept(submit, service, scored, package_folder, tmp_path):
    result = files(scored.folder / "results")["segmentation.nii.gz"]
    for name in ("segmentation.nii.gz", "segmentation_001.nii.gz"):
        (tmp_path / name).write_text("an earlier one")

    outcome = submit(package_folder, job=lambda job: completes(service, job.run, result))

    assert outcome.stdout.splitlines()[-1] == "segmentation_002.nii.gz"
    found = {name: content for name, content in files(tmp_path).items() if name != "config.json"}
    assert found == {
        "segmentation.nii.gz": b"an earlier one",
        "segmentation_001.nii.gz": b"an earlier one",
        "segmentation_002.nii.gz": result,
    }


def test_segmentation_of_another_image_is_not_kept(submit, service, package_folder, tmp_path, tmp_path_factory):
    other = write_image(tmp_path_factory.mktemp("other") / "other.nii.gz", 3, (10, 9, 7)).read_bytes()

    outcome = submit(package_folder, job=lambda job: completes(service, job.run, other))

    refused(outcome, 4, "what the job wrote has 10 × 9 × 7 voxels", "but the image has 10 × 9 × 8")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_job_that_leaves_nothing(submit, package_folder, tmp_path):
    outcome = submit(package_folder, job=lambda job: job.run.set_status("Completed"))

    refused(outcome, 5, "has no outputs/segmentation.nii.gz", "https://ml.azure.com/runs/")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("log_file", ["user_logs/std_log.txt", "azureml-logs/20_image_build_log.txt"])
def test_log_of_a_failed_job_is_shown_without_secrets(log_file, submit, service, package_folder):
    token = service.workspace.identity.issue("run")
    log = (
        "first line\n"
        + "…\n" * 30
        + f"reading https://account/blob?sig=c2lnbmF0dXJl&se=2099\nBearer {token}\nlast line\n"
    )

    def fail(job: Any) -> None:
        service.workspace.add_artifact(job.run, log_file, log.encode())
        if not log_file.startswith("user_logs/"):  # the SDK looks for those among the artifacts
            job.run.log_files.append(log_file)
        job.run.set_status("Failed", "User process exited with status code 3.")

    outcome = submit(package_folder, job=fail)

    run = service.workspace.jobs[-1].run.run_id
    refused(outcome, 5, f"run {run} is Failed: User process exited with status code 3")
    shown = [line for line in outcome.stderr.splitlines() if line.startswith("log: ")]
    assert shown[-1] == "log: last line"
    assert len(shown) == 20
    assert "log: first line" not in shown
    assert "c2lnbmF0dXJl" not in outcome.stderr
    assert token not in outcome.stderr


def test_ctrl_c_leaves_the_job_running_and_says_where(service, package_folder, study, tmp_path):
    service.write_config(tmp_path)
    service.workspace.on_submit = lambda job: job.run.set_status("Preparing")
    command = [sys.executable, "-m", "innereye_core", "azureml", "submit", str(package_folder), *map(str, study)]
    with subprocess.Popen(
        [*command, "--compute", "gpu-cluster"],
        env=service.whole_environment(None, variables(service)),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "Preparing" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=30)
    service.workspace.on_submit = None

    run = service.workspace.jobs[-1].run
    assert process.returncode == 130
    assert f"run {run.run_id} goes on" in rest
    assert "https://ml.azure.com/runs/" in rest
    assert run.status == "Preparing"


# --- what is refused before anything is sent --------------------------------------------------------------------------


def test_unknown_compute(submit, service, package_folder):
    before = len(service.workspace.jobs), len(service.workspace.blobs.contents())

    outcome = submit(package_folder, "--compute", "cpu-cluster")

    refused(outcome, 5, "'cpu-cluster'", "it has: gpu-cluster")
    assert (len(service.workspace.jobs), len(service.workspace.blobs.contents())) == before


def test_help_does_not_load_the_sdk(service):
    code = """\
import sys
from innereye_core.cli.group import innereye
from innereye_core.cli.main import run
assert run(innereye, ["azureml", "submit", "--help"], "innereye") == 0
assert not [name for name in sys.modules if name.partition(".")[0] == "azureml"]
"""
    outcome = service.python(code)

    assert outcome.exit_code == 0, outcome.stderr
    assert "--compute NAME" in outcome.stdout


# --- an AzureML that fails now and then -------------------------------------------------------------------------------


def test_job_whose_submission_is_not_answered_is_found_again(submit, service, scored, package_folder):
    from azureml_server import Fault

    result = files(scored.folder / "results")["segmentation.nii.gz"]
    service.faults.add(Fault(path="/snapshotrun", drop=True, applied=True))

    outcome = submit(package_folder, job=lambda job: completes(service, job.run, result))

    service.broken.clear()  # the SDK has asked again for a run that there is
    assert outcome.exit_code == 0, outcome
    assert f"run {service.workspace.jobs[-1].run.run_id}: Completed" in outcome.stderr.splitlines()


def test_job_is_waited_for_while_azureml_is_out_of_reach(submit, service, scored, package_folder):
    from azureml_server import Fault

    result = files(scored.folder / "results")["segmentation.nii.gz"]

    def complete_unseen(job: Any) -> None:
        service.faults.add(Fault(path=f"/runs/{job.run.run_id}$", method="GET", drop=True, times=20))
        completes(service, job.run, result)

    outcome = submit(package_folder, job=complete_unseen)

    assert outcome.exit_code == 0, outcome


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [("blob.core.*1_T2_weighted", 403, ["not permitted (403)"]), ("/snapshotrun", 400, ["(400)", "The test asked"])],
)
def test_submission_that_azureml_refuses(path, status, words, submit, service, package_folder, study, tmp_path):
    from azureml_server import Fault

    before = len(service.workspace.jobs)
    service.faults.add(Fault(path=path, status=status, times=None))

    outcome = submit(package_folder, images=[study[0], write_image(tmp_path / "never_sent_before.nii.gz", 4)])

    refused(outcome, 5, "cannot submit run innereye-scoring_", *words)
    assert len(service.workspace.jobs) == before


# --- limits of the SDK ------------------------------------------------------------------------------------------------


def test_packages_larger_than_the_sdk_likes_are_sent(service, package_folder, tmp_path):
    study = [write_image(tmp_path / f"{number}.nii.gz", number) for number in (5, 6)]
    before = len(service.workspace.jobs)
    service.write_config(tmp_path)
    code = """\
import sys
from azureml._restclient import snapshots_client
snapshots_client.SNAPSHOT_MAX_SIZE_BYTES = 1000
snapshots_client.SNAPSHOT_MAX_FILES = 1
from innereye_core.cli.main import main
main(sys.argv[1:])
"""
    arguments = ("azureml", "submit", package_folder, *study, "--compute", "gpu-cluster")
    service.workspace.on_submit = lambda job: job.run.set_status("Completed")

    service.python(code, *arguments, cwd=tmp_path, variables=variables(service))
    service.workspace.on_submit = None

    assert len(service.workspace.jobs) == before + 1


def test_what_lies_in_a_package_and_is_no_part_of_it_stays_here(submit, service, package_folder, study):
    outcome = submit(package_folder, job=lambda job: job.run.set_status("Canceled"))

    refused(outcome, 5, "is Canceled")
    assert "final_model/score.py" in service.workspace.jobs[-1].files
    assert service.where_sent(EARLIER_PATIENT) == []
