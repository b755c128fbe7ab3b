"""``innereye export`` makes a copy of a package with the model in another form, whatever that form is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from innereye_core.errors import InputError, IntegrityError
from innereye_core.exported_networks import (
    EXPORT_FILE,
    Agreement,
    Export,
    ExportedFile,
    find_exported,
    threads_asked_for,
)
from innereye_core.manifest import open_package, record_bytes, verify
from innereye_core.model import ModelFiles
from innereye_core.registered_models import load_model

EXPORTER = """
    from innereye_core import hookimpl
    from innereye_core.errors import InputError
    from innereye_core.model import Check

    class Notes:
        name = "notes"
        precisions = ("fp32", "fp16")

        def export(self, model, folder, precision, providers, progress):
            {work}
            return [Check("notes", "passed", f"{{model.config.model_name}} in {{precision}}")]

    @hookimpl
    def innereye_exporters():
        return [Notes]
"""

ADDS_A_NOTE = "(folder / 'notes').mkdir(exist_ok=True); (folder / 'notes' / f'{precision}.txt').write_text('noted')"


@pytest.fixture
def exporter(install: Callable[..., str]) -> Callable[[str], None]:
    """Install an exporter ``notes`` that does this work."""

    def install_exporter(work: str = ADDS_A_NOTE) -> None:
        install("notes", EXPORTER.format(work=work))

    return install_exporter


def digests(folder: Path) -> dict[str, str]:
    return {file.path: file.sha256 for file in open_package(folder).manifest.files}


def test_copy_has_every_file_of_the_model_and_the_new_ones(packaged, exporter, innereye, tmp_path) -> None:
    exporter()
    before = open_package(packaged).digest
    outcome = innereye("export", "notes", packaged, "--output", tmp_path / "out").done()
    copy = tmp_path / "out" / "final_model"
    assert outcome.stdout.splitlines() == ["passed: notes: Toy in fp32", str(copy)]
    assert digests(copy).items() >= digests(packaged).items()
    assert digests(copy).keys() - digests(packaged).keys() == {"notes/fp32.txt"}
    assert verify(open_package(copy)) == ()
    assert open_package(packaged).digest == before


def test_manifest_tells_the_new_files_from_the_others(packaged, exporter, innereye, tmp_path) -> None:
    exporter()
    innereye("export", "notes", packaged, "--output", tmp_path).done()
    before, after = (open_package(folder / "final_model").manifest for folder in (packaged.parent, tmp_path))
    roles = {file.path: file.role for file in after.files}
    assert roles == {**{file.path: file.role for file in before.files}, "notes/fp32.txt": "notes"}
    assert (after.members, after.run, after.plugins) == (before.members, before.run, before.plugins)


def test_json_document(packaged, exporter, innereye, tmp_path) -> None:
    exporter()
    document = innereye("export", "notes", packaged, "--output", tmp_path, "--precision", "fp16", "--json").done().json
    assert document == {
        "package": str(tmp_path / "final_model"),
        "digest": open_package(tmp_path / "final_model").digest,
        "added": ["notes/fp16.txt"],
        "checks": [{"name": "notes", "outcome": "passed", "detail": "Toy in fp16"}],
    }


def test_registering_the_copy_makes_the_next_version(packaged, exporter, innereye, tmp_path) -> None:
    exporter()
    innereye("register", packaged).done()
    innereye("export", "notes", "Toy:1", "--output", tmp_path).done()
    assert innereye("register", tmp_path / "final_model").done().stdout == "Toy:2\n"
    assert innereye("models", "verify", "Toy:1").exit_code == innereye("models", "verify", "Toy:2").exit_code == 0


def test_existing_package_is_refused_unless_it_is_to_be_replaced(packaged, exporter, innereye, tmp_path) -> None:
    exporter()
    innereye("export", "notes", packaged, "--output", tmp_path).done()
    again = ("export", "notes", packaged, "--output", tmp_path, "--precision", "fp16")
    innereye(*again).refused(5, str(tmp_path / "final_model"), "--replace")
    innereye(*again, "--replace").done()
    assert (tmp_path / "final_model" / "notes" / "fp16.txt").is_file()
    assert not (tmp_path / "final_model" / "notes" / "fp32.txt").exists()


def test_files_of_an_earlier_export_are_left_out(packaged, exporter, innereye, tmp_path) -> None:
    exporter()
    innereye("export", "notes", packaged, "--output", tmp_path / "once", "--precision", "fp16").done()
    innereye("export", "notes", tmp_path / "once" / "final_model", "--output", tmp_path / "twice").done()
    assert digests(tmp_path / "twice" / "final_model").keys() - digests(packaged).keys() == {"notes/fp32.txt"}


@pytest.mark.parametrize("place", ["", "final_model"])
def test_the_model_stays_as_it_is(packaged, exporter, innereye, place) -> None:
    exporter()
    outcome = innereye("export", "notes", packaged, "--output", packaged.parent / place, "--replace")
    outcome.refused(2, str(packaged), "choose another")


@pytest.mark.parametrize(
    ("work", "exit_code", "words"),
    [
        ("raise InputError('this network is beyond words')", 3, ("beyond words",)),
        ("(folder / 'README.md').write_text('mine')", 2, ("'notes'", "'README.md'", "mend the plugin")),
        ("(folder / 'README.md').unlink()", 4, ("README.md is missing",)),
        ("raise OSError(28, 'No space left on device')", 7, ("No space left",)),
    ],
)
def test_nothing_is_published_where_the_exporter_fails(
    packaged, exporter, innereye, tmp_path, work, exit_code, words
) -> None:
    exporter(work)
    output = tmp_path / "out"
    innereye("export", "notes", packaged, "--output", output).refused(exit_code, *words)
    assert list(output.iterdir()) == []


def test_unknown_form_is_refused_with_those_there_are(packaged, exporter, innereye, tmp_path) -> None:
    exporter()
    innereye("export", "clay", packaged, "--output", tmp_path).refused(2, "'clay'", "notes")


def test_form_of_a_plugin_that_is_not_installed_says_what_to_install(packaged, innereye, tmp_path) -> None:
    innereye("export", "onnx", packaged, "--output", tmp_path).refused(6, "pip install 'innereye-onnx[cpu,export]'")


def test_precision_that_the_exporter_has_not_is_refused(packaged, install, innereye, tmp_path) -> None:
    install("notes", EXPORTER.format(work=ADDS_A_NOTE).replace('("fp32", "fp16")', '("fp32",)'))
    innereye("export", "notes", packaged, "--output", tmp_path, "--precision", "fp16").refused(2, "fp16", "fp32")


def test_damaged_model_is_refused(packaged, exporter, innereye, tmp_path) -> None:
    exporter()
    (packaged / "validation.json").write_text("{}")
    innereye("export", "notes", packaged, "--output", tmp_path / "out").refused(4, "validation.json")
    assert not (tmp_path / "out").exists()


def test_observer_sees_the_copy(packaged, exporter, install, innereye, tmp_path, caplog) -> None:
    exporter()
    install(
        "watch",
        """
        from innereye_core import hookimpl

        @hookimpl
        def innereye_after_package(package):
            raise RuntimeError(f"saw {package.folder.parent.name}")
        """,
    )
    outcome = innereye("export", "notes", packaged, "--output", tmp_path / "out")
    assert outcome.exit_code == 1
    assert "saw out" in caplog.text
    assert verify(open_package(tmp_path / "out" / "final_model")) == ()


RUNTIME = """
    from pathlib import Path

    from innereye_core import hookimpl
    from innereye_core.model import ToolboxSource

    @hookimpl
    def innereye_toolbox_sources():
        names = ("fast-innereye", "1.0", "fast", "fast_runtime.plugin")
        return [ToolboxSource("ML", "fast_runtime", Path(__file__).parent, *names, needed_to_score=False)]
"""


def test_runtime_that_was_not_there_when_the_model_was_packaged_is_added(
    packaged, exporter, install, innereye, tmp_path
) -> None:
    exporter()
    module = install("fast", RUNTIME)
    document = innereye("export", "notes", packaged, "--output", tmp_path, "--json").done().json
    manifest = open_package(tmp_path / "final_model").manifest
    path = f"InnerEye/ML/fast_runtime/{module}.py"
    assert path in document["added"]
    assert {file.path: file.role for file in manifest.files}[path] == "toolbox"
    assert [plugin.module for plugin in manifest.plugins if plugin.name == "fast"] == ["fast_runtime.plugin"]
    assert manifest.versions["fast-innereye"] == "1.0"


def test_code_of_this_version_is_not_mixed_with_that_of_another(
    packaged, exporter, install, innereye, tmp_path, monkeypatch, caplog
) -> None:
    exporter()
    install("fast", RUNTIME)
    monkeypatch.setattr("innereye_core.exporting.__version__", "9.9")
    innereye("export", "notes", packaged, "--output", tmp_path).done()
    assert "score.py in the package will not find fast-innereye" in caplog.text
    assert not (tmp_path / "final_model" / "InnerEye" / "ML" / "fast_runtime").exists()


# --- what a runtime reads ---------------------------------------------------------------------------------------------

CHECKPOINT = "checkpoints/2_checkpoint.pth.tar"


@pytest.fixture
def with_export(packaged: Path) -> Callable[..., ModelFiles]:
    """A model whose package says this about its exported files."""

    def write(**changes: Any) -> ModelFiles:
        record = Export(
            opset=20,
            smallest_patch_zyx=(1, 1, 1),
            only_patch_size=False,
            files=(ExportedFile("onnx/2_checkpoint.onnx", CHECKPOINT, "fp32"),),
            agreements=(Agreement("quick", "quick 1.0", "bf16", 0.0005, 0.01, 1000),),
            versions={},
            source_digest="sha256:0",
        )
        files = load_model(packaged).files
        (packaged / "onnx").mkdir()
        (packaged / EXPORT_FILE).write_bytes(record_bytes(dataclasses.replace(record, **changes)))
        return files

    return write


def test_files_come_in_the_order_of_the_checkpoints(with_export, packaged) -> None:
    found = find_exported(with_export(), "quick")
    assert found is not None
    assert found.files == (packaged / "onnx" / "2_checkpoint.onnx",)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": ()},
        {"files": (ExportedFile("onnx/1.onnx", "checkpoints/1_checkpoint.pth.tar", "fp32"),)},
        {"files": (ExportedFile("onnx/2.onnx", CHECKPOINT, "fp16"),)},
        {"smallest_patch_zyx": (8, 8, 8), "only_patch_size": True},
    ],
    ids=["none", "another checkpoint", "another precision", "another patch size alone"],
)
def test_files_that_do_not_fit_the_model_are_not_used(with_export, changes) -> None:
    assert find_exported(with_export(**changes), "quick") is None


def test_neither_a_package_without_export_nor_a_training_run_has_any(packaged) -> None:
    files = load_model(packaged).files
    assert find_exported(files, "quick") is None
    assert find_exported(dataclasses.replace(files, folder=None), "quick") is None


def test_damaged_record_is_refused(with_export, packaged) -> None:
    files = with_export()
    record = json.loads((packaged / EXPORT_FILE).read_text())
    (packaged / EXPORT_FILE).write_text(json.dumps({**record, "opset": "20"}))
    with pytest.raises(IntegrityError, match="opset"):
        find_exported(files, "quick")


def test_reduced_precision_says_what_it_cost_on_the_phantom(with_export) -> None:
    files = with_export()
    found = [find_exported(files, "quick", precision) for precision in ("fp32", "bf16")]
    full, measured = [exported.precision_check() for exported in found if exported is not None]
    assert (full.outcome, full.detail) == ("passed", "fp32")
    assert measured.outcome == "warning"
    assert measured.detail.startswith("bf16; 0.050% of the labels of a phantom differed from float32's")


def test_reduced_precision_that_was_never_measured_says_so(with_export) -> None:
    found = find_exported(with_export(agreements=()), "quick", "bf16")
    assert found is not None
    assert found.precision_check().outcome == "warning"
    assert "never measured" in found.precision_check().detail


def test_scores_of_a_size_that_does_not_follow_from_the_patches_are_refused(with_export) -> None:
    found = find_exported(with_export(), "quick")
    assert found is not None
    found.check_scores((2, 1, 4, 8, 8), (2, 2, 4, 8, 8))
    for scores in ((2, 2, 4, 8, 7), (1, 2, 4, 8, 8)):
        with pytest.raises(InputError, match="export the model again"):
            found.check_scores((2, 1, 4, 8, 8), scores)


@pytest.mark.parametrize(
    ("only", "size", "words"),
    [(True, (4, 8, 16), r"only \[4, 8, 8\]"), (False, (4, 8, 7), r"at least \[4, 8, 8\]"), (False, (4, 8, 16), None)],
)
def test_patches_of_a_size_that_was_never_tried_are_refused(with_export, only, size, words) -> None:
    found = find_exported(with_export(smallest_patch_zyx=(4, 8, 8), only_patch_size=only), "quick")
    assert found is not None
    if words is None:
        found.check_patches((1, 1, *size))
    else:
        with pytest.raises(InputError, match=rf"{words} voxels .*--runtime torch"):
            found.check_patches((1, 1, *size))


@pytest.mark.parametrize(("value", "threads"), [("3", 3), ("", None), ("0", None), ("many", None)])
def test_threads_are_those_that_the_environment_asks_for(monkeypatch, value, threads) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert threads_asked_for() == threads
