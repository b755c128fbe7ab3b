"""score.py behind AzureML's endpoints: where it finds the model, and what run() answers to text and to lists of paths.

Requests over HTTP are tested with the real server, in the tests that cross distributions.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import innereye_core
from innereye_core import load_model
from innereye_core.endpoint import Endpoint
from innereye_core.endpoint.served import ServedModel
from innereye_core.endpoint.uploads import DicomUploadError, TooLargeError
from innereye_core.errors import InputError, IntegrityError, StorageError, UsageError
from innereye_core.host import Host
from innereye_core.manifest import open_package, write_manifest

Run = Callable[..., Any]

SCORE_PY = Path(innereye_core.__file__).parent / "package_data" / "score.py"

IMAGE = "0.1 0.15 0.25 0.9"
LABELS = "0 0 1 1"

AS_AZUREML_DOES = """
import importlib.util, json, sys

specification = importlib.util.spec_from_file_location("entry_module", sys.argv[1])
script = importlib.util.module_from_spec(specification)
before = set(sys.modules), list(sys.path), sys.dont_write_bytecode
specification.loader.exec_module(script)
after = set(sys.modules), list(sys.path), sys.dont_write_bytecode
"""
"""How AzureML loads a scoring script: by its path."""


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# --- score.py ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def started(process: Run, tmp_path: Path) -> Run:
    """Load a package's score.py, call init() and run(), where an installed toolbox would be a trap."""
    for name in ("innereye_core", "toy_innereye"):
        trap = tmp_path / "trap" / name
        trap.mkdir(parents=True)
        (trap / "__init__.py").write_text("raise SystemExit('an installed copy was used')\n")

    def start(script: Path, model: Path | None, *, first: str = "") -> Any:
        body = json.dumps({"image": base64_of(IMAGE)})
        code = f"{first}{AS_AZUREML_DOES}script.init()\nprint(json.dumps(script.run({body!r})))"
        variables = {} if model is None else {"AZUREML_MODEL_DIR": str(model)}
        path = "" if first else str(tmp_path / "trap")
        return process(sys.executable, "-c", code, script, PYTHONPATH=path, **variables)

    return start


def test_loading_the_script_changes_nothing_and_imports_only_the_standard_library(process: Run) -> None:
    code = f"import os, pathlib, typing\n{AS_AZUREML_DOES}\nprint(before == after)"
    outcome = process(sys.executable, "-I", "-S", "-c", code, SCORE_PY).done()
    assert outcome.stdout == "True\n"


def test_run_before_init_says_so(process: Run) -> None:
    outcome = process(sys.executable, "-I", "-S", "-c", f"{AS_AZUREML_DOES}\nscript.run('')", SCORE_PY)
    assert outcome.stderr.splitlines()[-1] == "RuntimeError: no model is loaded; call init() before run()"


def test_init_loads_the_model_with_the_code_inside_the_package(started: Run, packaged: Path, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    script = code / "score.py"
    script.write_bytes(SCORE_PY.read_bytes())
    before = sorted(packaged.rglob("*"))

    answer = started(script, packaged).done().json

    assert base64.b64decode(answer.pop("segmentation")).decode() == LABELS
    assert answer == {
        "model": "Toy",
        "structures": {"bright": {"label": 1, "voxels": 2, "volume_ml": 0.002}},
        "checks": [
            {"name": "orientation", "outcome": "unchecked", "detail": "text has none"},
            {"name": "numbers", "outcome": "passed", "detail": "all finite"},
        ],
        "review": [],
        "seconds": 0.25,
        "runtime": "toy",
    }
    assert sorted(packaged.rglob("*")) == before


def test_without_the_variable_the_model_lies_beside_the_script(started: Run, packaged: Path) -> None:
    assert started(packaged / "score.py", None).done().json["model"] == "Toy"


@pytest.mark.parametrize(
    ("place", "variable", "title"),
    [
        ("mounted", "mounted", "Toy"),
        ("mounted/final_ensemble_model", "mounted", "Toy"),
        ("azureml-models/Prostate/892/final_model", "azureml-models/Prostate/892", "Prostate:892"),
        ("azureml-models/Prostate/892/final_model", "azureml-models", "Prostate:892"),
        ("models/Prostate/892/final_model", "models", "Toy"),
    ],
)
def test_model_is_found_where_azureml_mounts_it(
    started: Run, packaged: Path, tmp_path: Path, place: str, variable: str, title: str
) -> None:
    folder = tmp_path / place
    folder.parent.mkdir(parents=True, exist_ok=True)
    packaged.rename(folder)
    assert started(SCORE_PY, tmp_path / variable).done().json["model"] == title


def test_folder_without_a_package_is_refused(started: Run, tmp_path: Path) -> None:
    (tmp_path / "mounted").mkdir()
    outcome = started(SCORE_PY, tmp_path / "mounted")
    assert f"AZUREML_MODEL_DIR {tmp_path / 'mounted'}: holds no package" in outcome.stderr.splitlines()[-1]


def test_script_that_is_in_no_package_is_refused(started: Run) -> None:
    assert "the folder of score.py: holds no package" in started(SCORE_PY, None).stderr.splitlines()[-1]


def test_several_packages_are_named_and_refused(started: Run, packaged: Path, tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / "Toy" / version / "final_model" / "InnerEye").mkdir(parents=True)
        (tmp_path / "Toy" / version / "final_model" / "manifest.json").write_text("{}")
    line = started(SCORE_PY, tmp_path / "Toy").stderr.splitlines()[-1]
    for words in ("holds 2 packages", "Toy/1/final_model", "Toy/2/final_model"):
        assert words in line


def test_changed_package_is_refused_when_the_endpoint_starts(started: Run, packaged: Path) -> None:
    next((packaged / "checkpoints").iterdir()).write_text("{}")
    outcome = started(SCORE_PY, packaged)
    assert "IntegrityError" in outcome.stderr
    assert "has changed" in outcome.stderr.splitlines()[-1]


def test_network_that_cannot_be_loaded_is_refused_when_the_endpoint_starts(packaged: Path, host: Host) -> None:
    checkpoint = next((packaged / "checkpoints").iterdir())
    checkpoint.write_text(json.dumps({"epoch": 2, "weights": {"bias": 0.2}}))
    manifest = open_package(packaged).manifest
    write_manifest(packaged, manifest, {record.path: record.role for record in manifest.files})

    with pytest.raises(InputError, match=r"has the weights \['bias'\], not \['threshold'\]"):
        ServedModel(load_model(packaged, host=host), host)


def test_installed_copy_that_was_imported_before_is_refused(started: Run, packaged: Path) -> None:
    outcome = started(SCORE_PY, packaged, first="import innereye_core\n")
    assert "its own code was not used" in outcome.stderr.splitlines()[-1]


# --- JSON requests ----------------------------------------------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def endpoint(packaged: Path, host: Host, temporary: Path) -> Endpoint:
    return Endpoint(ServedModel(load_model(packaged, host=host), host))


@pytest.fixture
def two_channels(run_folder: Path, host: Host, innereye: Run) -> Endpoint:
    text = (run_folder / "model.yaml").read_text()
    text = text.replace("[ct]", "[ct, pet]").replace("Threshold", "Threshold\n  arguments: {channels: 2}")
    (run_folder / "model.yaml").write_text(text)
    innereye("package", run_folder).done()
    return Endpoint(ServedModel(load_model(run_folder / "final_model", host=host), host))


def nifti_header(*sizes: int, version: int = 1, order: str = "<") -> bytes:
    """The start of a NIfTI file that announces an image of these sizes."""
    padded = [len(sizes), *sizes] + [1] * (7 - len(sizes))
    if version == 1:
        return struct.pack(f"{order}i36x8h", 348, *padded).ljust(348, b"\0")
    return struct.pack(f"{order}i12x8q", 540, *padded).ljust(540, b"\0")


def test_answer_is_the_segmentation_and_what_is_known_about_it(endpoint: Endpoint, temporary: Path) -> None:
    answer = endpoint.run(json.dumps({"image": base64_of(IMAGE)}))

    assert base64.b64decode(answer["segmentation"]).decode() == LABELS
    assert (answer["model"], answer["structures"]["bright"]["voxels"]) == ("Toy", 2)
    assert list(temporary.iterdir()) == []


def test_base64_may_have_line_breaks(endpoint: Endpoint) -> None:
    wrapped = base64.encodebytes((IMAGE + " 0.0" * 40).encode()).decode()
    assert endpoint.run(json.dumps({"image": wrapped}))["structures"]["bright"]["voxels"] == 2


def test_one_image_per_channel_in_the_order_of_the_config(two_channels: Endpoint) -> None:
    answer = two_channels.run(json.dumps({"images": [base64_of("0.0 0.1"), base64_of("0.1 0.9")]}))
    assert base64.b64decode(answer["segmentation"]).decode() == "0 1"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "is not JSON"),
        ("0.1 0.2", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "must be"),
        ("{}", "must be"),
        ('{"images": []}', "must be"),
        ('{"images": "MC4x"}', "must be"),
        ('{"image": "MC4x", "images": ["MC4x"]}', "must be"),
        ('{"image": "MC4x", "posteriors": true}', "must be"),
        ('{"image": 7}', "is int, not text"),
        ('{"images": ["MC4x", null]}', "is NoneType, not text"),
        ('{"image": "MC4x!"}', "is not base64"),
        ('{"image": "MC4"}', "is not base64"),
        ('{"image": "MC4ä"}', "is not base64"),
    ],
)
def test_text_that_is_no_request_is_refused(endpoint: Endpoint, body: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        endpoint.run(body)


def test_dicom_is_refused_with_the_plugin_that_it_needs(endpoint: Endpoint, temporary: Path) -> None:
    body = json.dumps({"image": base64.b64encode(b"PK\x03\x04 a DICOM series").decode()})
    with pytest.raises(DicomUploadError, match="pip install innereye-dicom") as refused:
        endpoint.run(body)
    assert refused.value.exit_code == 6
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize(("version", "order"), [(1, "<"), (1, ">"), (2, "<"), (2, ">")])
def test_image_that_announces_too_many_voxels_is_refused(
    endpoint: Endpoint, version: int, order: str, gzipped: bool
) -> None:
    content = nifti_header(30_000, 30_000, 30_000, version=version, order=order)
    body = json.dumps({"image": base64.b64encode(gzip.compress(content) if gzipped else content).decode()})
    with pytest.raises(TooLargeError, match=r"announces 27000000000000 voxels; an endpoint takes at most 536870912"):
        endpoint.run(body)


def test_messages_do_not_say_where_files_lie(endpoint: Endpoint, packaged: Path, temporary: Path) -> None:
    (packaged / "checkpoints" / "2_checkpoint.pth.tar").write_text("not a checkpoint")
    with pytest.raises(InputError) as refused:
        endpoint.run(json.dumps({"image": base64_of(IMAGE)}))
    assert str(refused.value) == "checkpoints/2_checkpoint.pth.tar: is no toy checkpoint; train again"
    assert list(temporary.iterdir()) == []


def test_threads_get_their_own_answers(endpoint: Endpoint) -> None:
    def found(bright: int) -> int:
        answer = endpoint.run(json.dumps({"image": base64_of(" ".join(["0.9"] * bright + ["0.1"]))}))
        voxels: int = answer["structures"]["bright"]["voxels"]
        return voxels

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(found, range(40))) == list(range(40))


@pytest.mark.parametrize("data", [None, 7, b"bytes", {"image": "MC4x"}])
def test_what_is_neither_request_nor_list_is_refused(endpoint: Endpoint, data: object) -> None:
    with pytest.raises(UsageError, match="run\\(\\) takes a request, JSON as text, or a list of paths"):
        endpoint.run(data)


# --- mini-batches -----------------------------------------------------------------------------------------------------


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output folder of a batch job, which nobody has made yet."""
    folder = tmp_path / "job" / "score"
    monkeypatch.setenv("AZUREML_BI_OUTPUT_PATH", str(folder))
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "patient 1.nii.gz"
    path.write_text(IMAGE)
    return path


def test_every_study_gets_a_segmentation_and_a_row(endpoint: Endpoint, output: Path, image: Path) -> None:
    second = image.with_name("second.nii")
    second.write_text("0.9")

    rows = endpoint.run([str(image), str(second)])

    assert [Path(row["segmentation"]).read_text() for row in rows] == [LABELS, "1"]
    assert [row["image"] for row in rows] == [str(image), str(second)]
    assert [row["error"] for row in rows] == [None, None]
    assert rows[0]["structures"] == {"bright": {"label": 1, "voxels": 2, "volume_ml": 0.002}}
    assert [Path(row["segmentation"]).name.rpartition("-")[0] for row in rows] == ["patient_1", "second"]


def test_rows_are_json_in_predictions_csv_and_in_a_file_of_their_own(
    endpoint: Endpoint, output: Path, image: Path
) -> None:
    (row,) = endpoint.run([str(image)])
    beside = Path(row["segmentation"].removesuffix(".nii.gz") + ".json")
    assert json.loads(str(row)) == json.loads(json.dumps(row)) == json.loads(beside.read_text()) == row
    assert sorted(output.iterdir()) == sorted([beside, Path(row["segmentation"])])


def test_study_that_fails_is_a_row_that_says_so_and_the_others_go_on(
    endpoint: Endpoint, output: Path, image: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dicom, broken = image.with_name("series.zip"), image.with_name("secret.nii")
    dicom.write_bytes(b"PK\x03\x04")
    broken.write_text("0.1 of a secret")

    rows = endpoint.run([str(dicom), str(broken), str(image.with_name("gone.nii")), str(image)])

    assert rows[0]["error"] == "DICOM input needs a plugin: pip install innereye-dicom"
    assert rows[1]["error"].startswith("unexpected ValueError: ")
    assert rows[2]["error"].startswith("unexpected FileNotFoundError: ")
    assert [row["segmentation"] for row in rows[:3]] == [None] * 3
    assert Path(rows[3]["segmentation"]).read_text() == LABELS
    assert sorted(json.loads(path.read_text())["error"] or "" for path in output.glob("*.json")) == sorted(
        row["error"] or "" for row in rows
    )
    assert len(list(output.iterdir())) == 5
    assert "unexpected ValueError" in caplog.text
    assert "secret" not in caplog.text


def test_nothing_is_overwritten_when_names_are_equal_or_a_mini_batch_is_run_again(
    endpoint: Endpoint, output: Path, image: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / image.name
    other.parent.mkdir()
    other.write_text("0.9")

    rows = [*endpoint.run([str(image), str(other)]), *endpoint.run([str(image), str(other)])]

    assert [Path(row["segmentation"]).read_text() for row in rows] == [LABELS, "1", LABELS, "1"]
    assert len(list(output.iterdir())) == 8


@pytest.mark.parametrize("name", ["..", ".hidden", "ä\n; rm -rf.nii", "x" * 255, "-"])
def test_names_of_results_are_harmless(endpoint: Endpoint, output: Path, tmp_path: Path, name: str) -> None:
    endpoint.run([str(tmp_path / "there" / name)])
    (path,) = output.iterdir()
    assert path.parent == output
    assert len(path.name) < 120
    assert not path.name.startswith(".")
    assert set(path.name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def test_empty_mini_batch(endpoint: Endpoint, output: Path) -> None:
    assert endpoint.run([]) == []


def test_model_of_several_channels_is_refused_for_batches(two_channels: Endpoint, output: Path, image: Path) -> None:
    with pytest.raises(UsageError, match=r"takes 2 images per study \(ct, pet\)"):
        two_channels.run([str(image), str(image)])


def test_batch_without_an_output_folder_is_refused(
    endpoint: Endpoint, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZUREML_BI_OUTPUT_PATH", raising=False)
    with pytest.raises(UsageError, match="AZUREML_BI_OUTPUT_PATH is not set"):
        endpoint.run([str(image)])


def test_disk_that_fails_fails_the_mini_batch(endpoint: Endpoint, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZUREML_BI_OUTPUT_PATH", str(image / "below a file"))
    with pytest.raises(StorageError, match="cannot write"):
        endpoint.run([str(image)])


def test_own_code_is_asked_for_before_anything_is_loaded(packaged: Path, toy: Path) -> None:
    from innereye_core.endpoint import open_endpoint

    with pytest.raises(IntegrityError, match="its own code was not used"):
        open_endpoint(packaged)
