"""The runtime ``openvino``: exported networks in OpenVINO, without PyTorch."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import shutil
import sys

import numpy as np
import openvino
import pytest
from small_packages import UNET_CROP, eager_scores, model_of, patches

from innereye_core.contract.providers import PrecisionRuntime
from innereye_core.errors import InputError, MissingPluginError, UsageError
from innereye_core.model import ModelFiles, NetworkGeometry
from innereye_openvino import compiled
from innereye_openvino.compiled import has_bfloat16
from innereye_openvino.providers import OpenVinoRuntime

RUNTIME = OpenVinoRuntime()

needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="needs a CPU with bfloat16")


@pytest.fixture(scope="module")
def model(exported_unet) -> ModelFiles:
    return model_of(exported_unet.package.folder)


def test_scores_are_those_of_eager_pytorch(model) -> None:
    (network,) = RUNTIME.load(model, "cpu")
    image = patches(2, UNET_CROP)
    scores = network.evaluate(image)
    assert isinstance(scores, np.ndarray)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, eager_scores(model, image)[0], rtol=0, atol=1e-5)


def test_scores_stay_what_they_are_when_the_next_patches_come(model) -> None:
    (network,) = RUNTIME.load(model, "cpu")
    first = network.evaluate(patches(1, UNET_CROP, 1))
    kept = first.copy()
    second = network.evaluate(patches(1, UNET_CROP, 2))
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(second, kept)
    first += 1  # whoever stitches may work on it in place


def test_one_shape_after_another_is_evaluated(model) -> None:
    (network,) = RUNTIME.load(model, "cpu")
    for batch, size in ((1, UNET_CROP), (2, UNET_CROP), (1, (4, 4, 4)), (3, (8, 4, 12)), (1, UNET_CROP)):
        image = patches(batch, size)
        np.testing.assert_allclose(network.evaluate(image), eager_scores(model, image)[0], rtol=0, atol=1e-5)


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


def test_threads_that_share_a_network_do_not_mix_their_patches(model) -> None:
    (network,) = RUNTIME.load(model, "cpu")
    images = [patches(1, UNET_CROP, seed) for seed in range(8)]
    expected = [network.evaluate(image) for image in images]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(network.evaluate, images))
    np.testing.assert_array_equal(found, expected)


def test_geometry_is_that_of_the_package(model) -> None:
    (network,) = RUNTIME.load(model, "cpu")
    assert network.geometry == NetworkGeometry((4, 4, 4), (4, 4, 4), UNET_CROP)


def test_report_says_what_really_ran(model) -> None:
    (network,) = RUNTIME.load(model, "cpu")
    runtime, precision = network.checks
    assert (runtime.outcome, runtime.detail) == ("passed", f"openvino {openvino.__version__.partition('-')[0]}: CPU")
    assert (precision.outcome, precision.detail) == ("passed", "fp32")


def compiled_settings(network: compiled.OpenVinoNetwork) -> openvino.CompiledModel:
    network.evaluate(patches(1, UNET_CROP))
    (request,) = network._requests.values()
    return request.get_compiled_model()


def test_float32_is_float32_also_where_the_cpu_has_less(model, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    (network,) = RUNTIME.load(model, "cpu")
    settings = compiled_settings(network)
    assert settings.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert settings.get_property("INFERENCE_NUM_THREADS") == 2
    assert settings.get_property("ENABLE_CPU_PINNING") is False


@needs_bfloat16
def test_bfloat16_is_used_only_where_it_is_asked_for_and_says_what_it_costs(model) -> None:
    (full,), (reduced,) = RUNTIME.load(model, "cpu"), RUNTIME.load(model, "cpu", "bf16")
    assert compiled_settings(reduced).get_property("INFERENCE_PRECISION_HINT") == openvino.Type.bf16
    image = patches(1, UNET_CROP)
    assert 1e-4 < np.abs(full.evaluate(image) - reduced.evaluate(image)).max() < 0.5
    warning = reduced.checks[1]
    assert warning.outcome == "warning"
    assert warning.detail.startswith("bf16; ")
    assert "of the labels of a phantom differed from float32's" in warning.detail


# --- whether it can ---------------------------------------------------------------------------------------------------


def test_it_is_a_runtime_with_precisions() -> None:
    assert isinstance(RUNTIME, PrecisionRuntime)
    assert RUNTIME.precisions == ("fp32", "bf16")


def test_it_is_the_fastest_on_cpus_and_for_nothing_else(model) -> None:
    rank = RUNTIME.rank(model, "cpu")
    assert rank is not None
    assert rank > 150  # the torch runtime's
    assert RUNTIME.rank(model, "cuda") is None
    with pytest.raises(MissingPluginError, match="--device cpu"):
        RUNTIME.load(model, "cuda")


def test_cpu_without_bfloat16_computes_in_float32_only(model, monkeypatch) -> None:
    monkeypatch.setattr(compiled, "has_bfloat16", lambda: False)
    assert RUNTIME.rank(model, "cpu", "bf16") is None
    assert RUNTIME.rank(model, "cpu") is not None
    with pytest.raises(MissingPluginError, match="precision bf16"):
        RUNTIME.load(model, "cpu", "bf16")


def test_package_without_onnx_files_is_for_other_runtimes(unet_package, model) -> None:
    plain = model_of(unet_package)
    assert RUNTIME.rank(plain, "cpu") is None
    assert RUNTIME.rank(dataclasses.replace(model, folder=None), "cpu") is None
    with pytest.raises(InputError, match="innereye export onnx MODEL"):
        RUNTIME.load(plain, "cpu")


def test_without_openvino_it_cannot(model, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert RUNTIME.rank(model, "cpu") is None


def test_unknown_precision_is_refused(model) -> None:
    assert RUNTIME.rank(model, "cpu", "fp16") is None
    with pytest.raises(UsageError, match="fp32, bf16"):
        RUNTIME.load(model, "cpu", "fp16")


def test_file_that_is_none_is_refused(exported_unet, tmp_path) -> None:
    folder = shutil.copytree(exported_unet.package.folder, tmp_path / "final_model")
    model = model_of(folder)
    (folder / "onnx" / "1_checkpoint.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"1_checkpoint\.onnx: OpenVINO .* cannot read it") as refusal:
        RUNTIME.load(model, "cpu")
    assert "\n" not in str(refusal.value)
