"""A package behind AzureML's own inference server, and in a batch job, with every room at work."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import importlib.util
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

JSON = {"Content-Type": "application/json"}
NIFTI = {"Content-Type": "application/octet-stream"}

PATIENT = b"DOE^JANE"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        assert self.headers["Content-Type"] == "application/json"
        return json.loads(self.body, parse_constant=refuse)


@dataclass(frozen=True)
class Server:
    """AzureML's inference server with a package."""

    port: int
    package: Path
    temporary: Path
    log: Path

    def send(self, body: bytes, headers: Mapping[str, str] = NIFTI, method: str = "POST") -> Answer:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/score", body, dict(headers), method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                answer = Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                answer = Answer(error.code, error.headers, error.read())
        assert list(self.temporary.iterdir()) == []
        return answer

    def refuses(self, status: int, body: bytes, headers: Mapping[str, str] = NIFTI) -> str:
        """Assert that the answer is this status and one line, which says nothing about the machine; the line."""
        answer = self.send(body, headers)
        assert answer.status == status, answer
        assert list(answer.json) == ["message"]
        message: str = answer.json["message"]
        assert len(message.splitlines()) == 1
        for secret in (str(self.package), str(self.temporary), "Traceback", PATIENT.decode()):
            assert secret not in message
        return message


@contextlib.contextmanager
def served(package: Path, model_folder: Path, folder: Path, **variables: str) -> Iterator[Server]:
    """Run the server, as a deployment does: score.py lies in a folder of its own, the model is mounted elsewhere."""
    if importlib.util.find_spec("azureml_inference_server_http") is None:
        pytest.skip("azureml-inference-server-http is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code, temporary, log = folder / "code", folder / "temporary", folder / "server.log"
    code.mkdir()
    temporary.mkdir()
    shutil.copy(package / "score.py", code)
    trap = folder / "trap" / "innereye_core"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text("raise SystemExit('an installed copy was used')\n")
    words = ["--entry_script", code / "score.py", "--model_dir", model_folder, "--port", port]
    environment = {
        **os.environ,
        "PYTHONPATH": str(trap.parent),
        "TMPDIR": str(temporary),
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "azureml_inference_server_http", *map(str, words)],
            cwd=folder,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_healthy(port, process, log)
        for leftover in temporary.iterdir():  # of the server's own start
            leftover.unlink()
        yield Server(port, package, temporary, log)
    finally:
        process.terminate()
        process.wait(30)


def wait_until_healthy(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as response:
            assert response.read() == b"Healthy"
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    pytest.fail(f"the server does not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def server(_pristine_package, tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("deployment")
    mounted = folder / "azureml-models" / "Ball" / "3"
    package = shutil.copytree(_pristine_package, mounted / "final_model")
    with served(package, mounted, folder) as running:
        yield running


@pytest.fixture(scope="module")
def patient(_pristine_run) -> Path:
    """The image of a patient that the network was not trained on."""
    return _pristine_run / "image_2.nii.gz"


@pytest.fixture(scope="module")
def expected(server, patient, tmp_path_factory) -> bytes:
    """What the package's own command line makes of the image."""
    output = tmp_path_factory.mktemp("expected") / "expected.nii.gz"
    command = [sys.executable, server.package / "score.py", patient, "--output", output]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return output.read_bytes()


def base64_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


# --- answers ----------------------------------------------------------------------------------------------------------


def test_nifti_in_nifti_out(server, patient, expected):
    answer = server.send(patient.read_bytes())

    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.body == expected
    assert answer.headers["X-InnerEye-Model"] == "Ball:3"
    assert {"channels=passed", "orientation=passed", "spacing=passed"} <= set(
        answer.headers["X-InnerEye-Checks"].split("; ")
    )


def test_nifti_that_is_not_gzipped_gives_the_same(server, patient, expected):
    # A form is what curl calls a body when nobody tells it the type.
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert server.send(gzip.decompress(patient.read_bytes()), headers).body == expected


def test_json_in_json_out(server, patient, expected):
    answer = server.send(json.dumps({"image": base64_of(patient)}).encode(), JSON)

    assert answer.status == 200, answer
    document = answer.json
    assert base64.b64decode(document["segmentation"]) == expected
    voxels = np.count_nonzero(nibabel.Nifti1Image.from_bytes(gzip.decompress(expected)).dataobj)
    assert voxels > 100
    assert document["structures"] == {"ball": {"label": 1, "voxels": voxels, "volume_ml": pytest.approx(voxels * 8e-3)}}
    assert {check["name"]: check["outcome"] for check in document["checks"]}["orientation"] == "passed"
    assert (document["model"], document["runtime"]) == ("Ball:3", "torch")
    assert document["seconds"] > 0


def test_nifti_in_json_out_for_who_accepts_json(server, patient, expected):
    document = server.send(patient.read_bytes(), {**NIFTI, "Accept": "application/json"}).json
    assert base64.b64decode(document["segmentation"]) == expected


def test_image_that_was_turned_says_so(server, patient, tmp_path):
    image = nibabel.load(patient)
    turned = image.as_reoriented([[0, -1], [1, -1], [2, 1]])
    nibabel.save(turned, tmp_path / "turned.nii.gz")

    answer = server.send((tmp_path / "turned.nii.gz").read_bytes())

    assert "orientation=repaired" in answer.headers["X-InnerEye-Checks"]
    result = nibabel.Nifti1Image.from_bytes(gzip.decompress(answer.body))
    assert np.array_equal(result.affine, turned.affine)


# --- refusals ---------------------------------------------------------------------------------------------------------


def nifti(**changes: Any) -> bytes:
    """A small image whose header names a patient, with changes of its voxels."""
    voxels = np.random.default_rng(0).normal(100, 30, (12, 12, 8)).astype(np.float32)
    if "fill" in changes:
        voxels[...] = changes["fill"]
    image = nibabel.Nifti1Image(voxels, np.diag([*changes.get("spacing", (2, 2, 2)), 1]))
    image.header["descrip"] = image.header["db_name"] = PATIENT
    return image.to_bytes()


UNUSABLE = {
    "text": (b"no image at all", "image.nii: cannot be read as NIfTI"),
    "truncated": (nifti()[:-1000], "image.nii: cannot be read as NIfTI"),
    "truncated gzip": (gzip.compress(nifti())[:-1000], "image.nii.gz: cannot be read as NIfTI"),
    "constant": (nifti(fill=7), "image.nii: every voxel is 7.0"),
    "not a number": (nifti(fill=np.nan), "image.nii: 1152 voxels are NaN or infinite"),
    "spacing": (nifti(spacing=(1, 2, 3)), "spacing (1, 2, 3) mm but expected (2, 2, 2) mm"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_image_that_cannot_be_used_is_422_and_the_server_lives(server, patient, case):
    content, words = UNUSABLE[case]
    assert words in server.refuses(422, content)
    assert server.send(patient.read_bytes()).status == 200


def test_wrong_number_of_images_is_422(server, patient):
    body = json.dumps({"images": [base64_of(patient)] * 2}).encode()
    assert "2 image(s) given, but Ball takes 1" in server.refuses(422, body, JSON)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", NIFTI),
        (b"", JSON),
        (b"{", JSON),
        (b"\xff\xfe", JSON),
        (b'{"data": 1}', JSON),
        (b'{"image": "%%%"}', JSON),
    ],
)
def test_what_is_no_request_is_400(server, body, headers):
    server.refuses(400, body, headers)


@pytest.mark.parametrize("as_json", [False, True])
def test_dicom_is_415_and_names_the_plugin(server, as_json):
    series = b"PK\x03\x04 a zip archive"
    body = json.dumps({"image": base64.b64encode(series).decode()}).encode() if as_json else series
    assert "pip install innereye-dicom" in server.refuses(415, body, JSON if as_json else NIFTI)


def test_image_that_announces_too_much_is_413(server):
    header = struct.pack("<i36x8h", 348, 3, 30_000, 30_000, 30_000, 1, 1, 1, 1).ljust(352, b"\0")
    assert "announces 27000000000000 voxels" in server.refuses(413, gzip.compress(header))


def test_request_that_is_too_large_is_413_before_it_is_read(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.putrequest("POST", "/score")
    connection.putheader("Content-Length", str(2 << 30))
    connection.endheaders()
    with contextlib.closing(connection), connection.getresponse() as response:
        assert response.status == 413
        assert "larger than 1073741824 bytes" in json.load(response)["message"]


def test_request_in_pieces_is_read_to_its_end(server, patient, expected):
    content = patient.read_bytes()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    pieces = (content[start : start + 1000] for start in range(0, len(content), 1000))
    connection.request("POST", "/score", pieces, NIFTI, encode_chunked=True)
    with contextlib.closing(connection), connection.getresponse() as response:
        assert response.read() == expected


def test_only_post_segments(server):
    answer = server.send(b"", method="GET")
    assert (answer.status, answer.json) == (405, {"message": "Send images with POST"})
    assert server.send(b"", method="OPTIONS").status == 200


def test_what_is_not_the_requests_fault_is_500_and_says_nothing_of_the_machine(server, patient):
    hidden = server.temporary.rename(server.temporary.with_name("hidden"))
    try:
        request = urllib.request.Request(f"http://127.0.0.1:{server.port}/score", patient.read_bytes(), NIFTI)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)
    finally:
        hidden.rename(server.temporary)
    with refused.value as response:
        assert response.code == 500
        message = json.load(response)["message"]
    assert message == "Unexpected FileNotFoundError; the log of the deployment says where"
    assert server.send(patient.read_bytes()).status == 200
    log = server.log.read_text()
    assert "unexpected FileNotFoundError" in log
    assert "in _segment" in log


def test_nothing_of_a_patient_is_logged(server, patient):
    image = nibabel.load(patient)
    image.header["descrip"] = image.header["db_name"] = PATIENT
    content = image.to_bytes()

    assert server.send(content).status == 200
    server.refuses(422, content[:-100])
    server.refuses(400, b'{"image": "%s%%"}' % base64.b64encode(content), JSON)

    log = server.log.read_bytes()
    assert b"POST /score" in log
    assert PATIENT not in log
    assert base64.b64encode(content)[1000:1100] not in log


def test_time_that_is_up_is_said_by_the_server_which_lives(ball_package, patient, tmp_path):
    large = nibabel.Nifti1Image(np.random.default_rng(0).normal(size=(200, 200, 200)), np.diag([2, 2, 2, 1]))
    with served(ball_package, ball_package, tmp_path, SCORING_TIMEOUT_MS="2000") as server:
        assert server.refuses(500, large.to_bytes()) == "Scoring timeout after 2000 ms"
        assert server.send(patient.read_bytes()).status == 200


# --- the start --------------------------------------------------------------------------------------------------------


def test_server_does_not_start_with_a_package_that_was_changed(ball_package, tmp_path):
    code = ball_package / "InnerEye" / "ML" / "innereye_imaging" / "stitching.py"
    code.write_text(code.read_text() + "\n")
    refused = pytest.raises(pytest.fail.Exception, match=r"IntegrityError: .*stitching\.py has changed")
    with refused, served(ball_package, ball_package, tmp_path):
        pass


# --- a batch job ------------------------------------------------------------------------------------------------------

BATCH_JOB = """
import importlib.util, json, sys

specification = importlib.util.spec_from_file_location("entry_script", sys.argv[1])
script = importlib.util.module_from_spec(specification)
specification.loader.exec_module(script)
script.init()
for row in script.run(sys.argv[2:]):
    print(row)
"""


def test_batch_job_segments_what_it_can_and_has_a_row_for_the_rest(ball_package, patient, tmp_path, innereye):
    innereye("score", ball_package, patient, "--output", tmp_path / "expected.nii.gz")
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(patient.read_bytes()[:-100])
    environment = {
        **os.environ,
        "AZUREML_MODEL_DIR": str(ball_package.parent),
        "AZUREML_BI_OUTPUT_PATH": str(tmp_path / "score"),
    }

    paths = map(str, (ball_package / "score.py", broken, patient))
    command = [sys.executable, "-c", BATCH_JOB, *paths]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)

    failed, segmented = map(json.loads, done.stdout.splitlines())
    assert failed["segmentation"] is None
    assert f"{broken}: cannot be read as NIfTI" in failed["error"]
    assert segmented["error"] is None
    assert Path(segmented["segmentation"]).read_bytes() == (tmp_path / "expected.nii.gz").read_bytes()
    assert segmented["structures"]["ball"]["voxels"] > 100
    assert len(list((tmp_path / "score").iterdir())) == 3
