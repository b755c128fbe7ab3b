"""The runtime ``onnx``: exported networks in ONNX Runtime, without PyTorch."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from small_packages import UNET_CROP, eager_scores, model_of, patches

from innereye_core.contract.providers import PrecisionRuntime
from innereye_core.errors import InputError, MissingPluginError
from innereye_core.model import ModelFiles, NetworkGeometry
from innereye_onnx.cuda import BoundSession, CudaSession, runs_on_cuda
from innereye_onnx.installed import check_installed
from innereye_onnx.providers import OnnxRuntime

RUNTIME = OnnxRuntime()

needs_gpu = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="needs onnxruntime-gpu and a CUDA GPU",
)


@pytest.fixture(scope="module")
def model(exported_unet) -> ModelFiles:
    return model_of(exported_unet.package.folder)


@pytest.fixture
def unet_file(exported_unet) -> Path:
    return exported_unet.package.folder / "onnx" / "1_checkpoint.onnx"


# --- on the CPU -------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_eager_pytorch(model) -> None:
    (network,) = RUNTIME.load(model, "cpu")
    image = patches(2, UNET_CROP)
    scores = network.evaluate(image)
    assert isinstance(scores, np.ndarray)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, eager_scores(model, image)[0], rtol=0, atol=1e-5)
    scores += 1  # whoever stitches may work on it in place
    assert network.evaluate(image).max() < scores.max()


def test_geometry_is_that_of_the_package(model) -> None:
    (network,) = RUNTIME.load(model, "cpu")
    assert network.geometry == NetworkGeometry((4, 4, 4), (4, 4, 4), UNET_CROP)


def test_exactly_the_region_that_is_kept_comes_back(model) -> None:
    (network,) = RUNTIME.load(model, "cpu")
    image, region = patches(1, UNET_CROP), (slice(2, 6), slice(0, 16), slice(3, 4))
    np.testing.assert_array_equal(network.evaluate(image, region), network.evaluate(image)[:, :, *region])


def test_patches_of_every_memory_layout_are_taken(model) -> None:
    (network,) = RUNTIME.load(model, "cpu")
    image = patches(1, UNET_CROP)
    expected = network.evaluate(image)
    for layout in (np.asfortranarray(image), image.astype(np.float64)):
        np.testing.assert_array_equal(network.evaluate(layout), expected)
    image.flags.writeable = False
    np.testing.assert_array_equal(network.evaluate(image), expected)


def test_report_says_what_really_ran(model) -> None:
    (network,) = RUNTIME.load(model, "cpu")
    runtime, precision = network.checks
    assert (runtime.outcome, runtime.detail) == ("passed", f"{check_installed()}: CPUExecutionProvider")
    assert (precision.outcome, precision.detail) == ("passed", "fp32")


def test_float16_is_used_only_where_it_is_asked_for(model) -> None:
    (full,), (half,) = RUNTIME.load(model, "cpu"), RUNTIME.load(model, "cpu", "fp16")
    image = patches(1, UNET_CROP)
    difference = np.abs(full.evaluate(image) - half.evaluate(image)).max()
    assert 1e-4 < difference < 0.1
    assert half.checks[1].outcome == "warning"
    assert half.checks[1].detail.startswith("fp16; ")


def test_threads_are_those_of_the_process(model, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    (network,) = RUNTIME.load(model, "cpu")
    assert network._session._session.get_session_options().intra_op_num_threads == 3


def test_file_that_is_none_is_refused(exported_unet, tmp_path) -> None:
    folder = shutil.copytree(exported_unet.package.folder, tmp_path / "final_model")
    model = model_of(folder)
    (folder / "onnx" / "1_checkpoint.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"1_checkpoint\.onnx: ONNX Runtime .* cannot open it") as refusal:
        RUNTIME.load(model, "cpu")
    assert "\n" not in str(refusal.value)


# --- whether it can -----------------------------------------------------------------------------------------------


def test_it_is_a_runtime_with_precisions() -> None:
    assert isinstance(RUNTIME, PrecisionRuntime)
    assert RUNTIME.precisions == ("fp32", "fp16")


def test_rank_is_that_of_eager_pytorch(model) -> None:
    assert RUNTIME.rank(model, "cpu") == RUNTIME.rank(model, "cpu", "fp16") == 100


def test_package_without_onnx_files_is_for_other_runtimes(unet_package, model) -> None:
    plain = model_of(unet_package)
    assert RUNTIME.rank(plain, "cpu") is None
    assert RUNTIME.rank(dataclasses.replace(model, folder=None), "cpu") is None
    with pytest.raises(InputError, match="innereye export onnx MODEL --precision fp16"):
        RUNTIME.load(plain, "cpu", "fp16")


def test_without_onnx_runtime_it_cannot(model, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert RUNTIME.rank(model, "cpu") is None


def write_distribution(site: Path, name: str) -> None:
    folder = site / f"{name.replace('-', '_')}-1.2.3.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n")


def test_two_builds_of_onnx_runtime_are_refused_with_the_commands_that_mend_it(model, tmp_path, monkeypatch) -> None:
    write_distribution(tmp_path, "onnxruntime-gpu")
    monkeypatch.syspath_prepend(tmp_path)
    commands = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    with pytest.raises(MissingPluginError, match=commands):
        RUNTIME.load(model, "cpu")


def test_one_build_is_named_with_its_version(tmp_path, monkeypatch) -> None:
    write_distribution(tmp_path, "onnxruntime-gpu")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert check_installed() == "onnxruntime-gpu 1.2.3"


def test_none_says_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(MissingPluginError, match=r"pip install 'innereye-onnx\[cpu\]'"):
        check_installed()


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is CUDA here")
def test_cuda_that_no_session_really_has_is_refused(model, unet_file) -> None:
    assert RUNTIME.rank(model, "cuda") is None
    assert not runs_on_cuda(unet_file)
    with pytest.raises(MissingPluginError, match=r"device cuda: ONNX Runtime .* runs on .*CPUExecutionProvider here"):
        RUNTIME.load(model, "cuda")


def test_bound_inputs_and_outputs_give_the_same_scores_for_one_shape_after_another(unet_file) -> None:
    session = onnxruntime.InferenceSession(unet_file, providers=["CPUExecutionProvider"])
    bound = BoundSession(session, "cpu", graphs=False)
    shapes = [(1, UNET_CROP), (2, UNET_CROP), (1, (4, 4, 4)), (1, UNET_CROP)]
    found = [bound.run(patches(batch, size, seed)) for seed, (batch, size) in enumerate(shapes)]
    for seed, (batch, size) in enumerate(shapes):
        (expected,) = session.run(None, {"image": patches(batch, size, seed)})
        np.testing.assert_allclose(found[seed], expected, rtol=0, atol=1e-6)


@needs_gpu
def test_gpu_gives_the_scores_of_eager_pytorch_in_float32(model, unet_file) -> None:
    session = CudaSession(unet_file)
    for seed, (batch, size) in enumerate([(1, UNET_CROP), (2, UNET_CROP), (1, UNET_CROP)]):
        image = patches(batch, size, seed)
        np.testing.assert_allclose(session.run(image), eager_scores(model, image)[0], rtol=0, atol=1e-4)


@needs_gpu
def test_gpu_is_named_in_the_report(model) -> None:
    (network,) = RUNTIME.load(model, "cuda")
    assert network.checks[0].detail.endswith(": CUDAExecutionProvider")
