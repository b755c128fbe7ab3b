"""``innereye export onnx``: what is written computes what PyTorch computes, or nothing is published."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from small_packages import (
    UNET,
    UNET_ARGUMENTS,
    UNET_CROP,
    eager_scores,
    exported,
    lively,
    model_of,
    patches,
    write_package,
)

from innereye_core.errors import InputError, IntegrityError, MissingPluginError
from innereye_core.manifest import open_package, verify
from innereye_onnx import torch_export
from innereye_onnx.providers import OnnxRuntime
from innereye_segmentation.networks import Basic, UNet2D, UNet3D


def onnx_files(package: Path) -> list[str]:
    return sorted(path.relative_to(package).as_posix() for path in package.rglob("*.onnx*"))


def run(path: Path, image: np.ndarray) -> np.ndarray:
    """What plain ONNX Runtime makes of a file, without anything of ours."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["scores"], {"image": image})[0]


# --- the files --------------------------------------------------------------------------------------------------------


def test_file_takes_every_batch_and_every_multiple_of_the_size(unet_package, exported_unet) -> None:
    path = exported_unet.package.folder / "onnx" / "1_checkpoint.onnx"
    for batch, size in ((1, (4, 4, 4)), (3, (12, 8, 16)), (2, UNET_CROP)):
        image = patches(batch, size)
        (expected,) = eager_scores(model_of(unet_package), image)
        np.testing.assert_allclose(run(path, image), expected, rtol=0, atol=1e-5)


def test_axes_are_named_and_open(exported_unet) -> None:
    graph = onnx.load(exported_unet.package.folder / "onnx" / "1_checkpoint.onnx").graph
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {"image": ["batch", 1, "z", "y", "x"], "scores": ["batch", 3, "z", "y", "x"]}


def test_file_and_record_say_the_opset(exported_unet) -> None:
    folder = exported_unet.package.folder / "onnx"
    model = onnx.load(folder / "1_checkpoint.onnx")
    record = json.loads((folder / "export.json").read_text())
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", record["opset"])] == [("", 20)]
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "innereye.model": "Small",
        "innereye.checkpoint": "checkpoints/1_checkpoint.pth.tar",
        "innereye.precision": "fp32",
        "innereye.opset": "20",
        "innereye.smallest_patch_zyx": "[4, 4, 4]",
        "innereye.only_patch_size": "false",
    }


def test_file_is_a_valid_model_that_holds_nothing_of_the_machine_it_was_made_on(exported_unet) -> None:
    path = exported_unet.package.folder / "onnx" / "1_checkpoint.onnx"
    onnx.checker.check_model(path, full_check=True)
    assert str(Path(torch_export.__file__).parents[4]).encode() not in path.read_bytes()
    assert b".py" not in path.read_bytes()


def test_batch_normalisation_is_folded_as_in_the_torch_runtime(exported_unet) -> None:
    graph = onnx.load(exported_unet.package.folder / "onnx" / "1_checkpoint.onnx").graph
    assert {node.op_type for node in graph.node} == {"Add", "Conv", "ConvTranspose", "Relu"}


def test_weights_that_are_too_large_lie_beside_the_file(unet_package, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch_export, "LARGEST_FILE", 1000)
    package = exported(unet_package, tmp_path / "out").package
    assert onnx_files(package.folder) == ["onnx/1_checkpoint.onnx", "onnx/1_checkpoint.onnx.data"]
    assert "onnx/1_checkpoint.onnx.data" in [file.path for file in package.manifest.files]
    (network,) = OnnxRuntime().load(model_of(package.folder), "cpu")
    image = patches(1, UNET_CROP)
    (expected,) = eager_scores(model_of(unet_package), image)
    np.testing.assert_allclose(network.evaluate(image), expected, rtol=0, atol=1e-5)


def test_each_member_of_an_ensemble_has_a_file(tmp_path) -> None:
    members = [lively(UNet3D(**UNET_ARGUMENTS), seed) for seed in (1, 2)]
    package = write_package(tmp_path / "run", members, UNET, UNET_ARGUMENTS, UNET_CROP)
    made = exported(package, tmp_path / "out").package.folder
    assert made.name == "final_ensemble_model"
    assert onnx_files(made) == ["onnx/0/1_checkpoint.onnx", "onnx/1/1_checkpoint.onnx"]
    image = patches(1, UNET_CROP)
    found = [network.evaluate(image) for network in OnnxRuntime().load(model_of(made), "cpu")]
    for scores, expected in zip(found, eager_scores(model_of(package), image), strict=True):
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "network", "arguments", "crop"),
    [
        (
            "Basic",
            Basic,
            {"input_channels": 1, "feature_channels": [4, 4, 4, 4, 6, 6, 8, 8], "classes": 3},
            (33, 30, 36),
        ),
        (
            "UNet2D",
            UNet2D,
            {"input_channels": 1, "feature_channels": 4, "classes": 3, "downsampling_paths": 2},
            (1, 16, 24),
        ),
    ],
)
def test_other_networks_of_innereye_are_exported_with_every_patch_size(
    tmp_path, name, network, arguments, crop
) -> None:
    factory = f"innereye_segmentation.networks:{name}"
    package = write_package(tmp_path / "run", [lively(network(**arguments))], factory, arguments, crop)
    made = exported(package, tmp_path / "out")
    record = json.loads((made.package.folder / "onnx" / "export.json").read_text())
    minimum = network(**arguments).minimum_size_zyx
    assert (record["only_patch_size"], record["smallest_patch_zyx"]) == (False, list(minimum))
    for size in (minimum, crop):
        image = patches(2, size)
        (expected,) = eager_scores(model_of(package), image)
        for onnx_network in OnnxRuntime().load(model_of(made.package.folder), "cpu"):
            np.testing.assert_allclose(onnx_network.evaluate(image), expected, rtol=0, atol=1e-5)


# --- the package ------------------------------------------------------------------------------------------------------


def test_package_lists_the_files_and_carries_the_code_that_runs_them(exported_unet) -> None:
    package = exported_unet.package
    assert verify(package) == ()
    roles = {file.path: file.role for file in package.manifest.files if file.path.startswith("onnx/")}
    names = ("1_checkpoint.fp16.onnx", "1_checkpoint.onnx", "environment.yml", "export.json")
    assert roles == {f"onnx/{name}": "onnx" for name in names}
    assert {"onnx", "openvino"} <= {plugin.name for plugin in package.manifest.plugins}
    assert (package.folder / "InnerEye" / "ML" / "innereye_onnx" / "sessions.py").is_file()


def test_record_names_the_package_that_was_exported(unet_package, exported_unet) -> None:
    record = json.loads((exported_unet.package.folder / "onnx" / "export.json").read_text())
    assert record["source_digest"] == open_package(unet_package).digest
    assert record["versions"].keys() == {"innereye-onnx", "onnxscript", "torch", "onnxruntime", "openvino"}


def test_environment_without_pytorch_pins_what_was_compared(exported_unet) -> None:
    text = (exported_unet.package.folder / "onnx" / "environment.yml").read_text()
    record = json.loads((exported_unet.package.folder / "onnx" / "export.json").read_text())
    requirements = [line.strip(" -") for line in text.splitlines() if line.startswith("      - ")]
    assert f"onnxruntime=={record['versions']['onnxruntime']}" in requirements
    assert f"openvino=={record['versions']['openvino']}" in requirements
    assert not [requirement for requirement in requirements if requirement.startswith(("torch", "innereye"))]


def test_environment_of_the_model_stays_as_it_was(unet_package, exported_unet) -> None:
    before, after = (folder / "environment.yml" for folder in (unet_package, exported_unet.package.folder))
    assert before.read_bytes() == after.read_bytes()


# --- what was measured ------------------------------------------------------------------------------------------------


def test_every_runtime_and_precision_was_compared_with_eager_pytorch(exported_unet) -> None:
    record = json.loads((exported_unet.package.folder / "onnx" / "export.json").read_text())
    measured = {(found["runtime"], found["precision"]): found for found in record["agreements"]}
    assert {("onnx", "fp32"), ("onnx", "fp16"), ("openvino", "fp32")} <= measured.keys()
    for (_, precision), found in measured.items():
        assert found["voxels"] > 10_000
        assert found["largest_posterior_difference"] <= (1e-5 if precision == "fp32" else 0.1)
        assert found["labels_differing"] <= (0 if precision == "fp32" else 0.05)


def test_less_than_float32_is_a_warning_that_says_how_many_labels_differ(exported_unet) -> None:
    outcomes = {check.name: check for check in exported_unet.checks}
    assert outcomes["onnx fp32"].outcome == outcomes["openvino fp32"].outcome == "passed"
    assert outcomes["onnx fp16"].outcome == "warning"
    assert "of the labels" in outcomes["onnx fp16"].detail or "no label" in outcomes["onnx fp16"].detail


CHEAT = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, x):
        return self.conv(x) * (1.001 if torch.compiler.is_exporting() else 1)
"""


def test_file_that_computes_something_else_is_not_published(package_of, tmp_path) -> None:
    package = package_of(CHEAT)
    with pytest.raises(IntegrityError, match=r"differ from PyTorch's.*at most 1e-04 is accepted, nothing is published"):
        exported(package, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


OVERFLOW = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 1)

    def forward(self, x):
        return self.conv(x * 1e6) / 1e6
"""


def test_float16_that_overflows_is_not_published(package_of, tmp_path) -> None:
    package = package_of(OVERFLOW)
    with pytest.raises(IntegrityError, match="runtime onnx in fp16 cannot evaluate"):
        exported(package, tmp_path / "out", "fp16")
    assert list((tmp_path / "out").iterdir()) == []


# --- networks that PyTorch cannot export ------------------------------------------------------------------------------

POSITIONAL = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3, padding=1)
        self.place = nn.Parameter(torch.randn(1, 2, 8, 12, 12))

    def forward(self, x):
        return self.conv(x) + self.place
"""


def test_network_for_one_patch_size_is_exported_for_that_alone(package_of, tmp_path) -> None:
    made = exported(package_of(POSITIONAL), tmp_path / "out")
    (check,) = [check for check in made.checks if check.name == "patch size"]
    assert check.outcome == "warning"
    assert "patches of [8, 12, 12] voxels (z, y, x) only" in check.detail
    model = model_of(made.package.folder)
    (network,) = OnnxRuntime().load(model, "cpu")
    image = patches(3, (8, 12, 12))
    np.testing.assert_allclose(network.evaluate(image), eager_scores(model, image)[0], rtol=0, atol=1e-5)
    with pytest.raises(InputError, match=r"only \[8, 12, 12\] voxels .* patches of \[4, 12, 12\]; use --runtime torch"):
        network.evaluate(patches(1, (4, 12, 12)))


INTERPOLATED = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv3d(1, 4, 3, padding=1, stride=2), nn.Conv3d(4, 2, 3, padding=1)
        self.norm = nn.InstanceNorm3d(4)

    def forward(self, x):
        scores = self.up(self.norm(self.down(x)))
        return nn.functional.interpolate(scores, size=x.shape[2:], mode="trilinear", align_corners=False)
"""


def test_network_that_says_nothing_about_its_patches_is_exported_from_a_size_on_that_was_tried(
    package_of, tmp_path
) -> None:
    made = exported(package_of(INTERPOLATED), tmp_path / "out")
    model = model_of(made.package.folder)
    (network,) = OnnxRuntime().load(model, "cpu")
    for size in ((8, 12, 12), (7, 11, 11), (9, 15, 12)):
        image = patches(2, size)
        np.testing.assert_allclose(network.evaluate(image), eager_scores(model, image)[0], rtol=0, atol=1e-5)
    with pytest.raises(InputError, match=r"at least \[7, 11, 11\] voxels"):
        network.evaluate(patches(1, (6, 12, 12)))


DATA_DEPENDENT = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, x):
        return self.conv(x) if x.mean() > 0 else -self.conv(x)
"""

NO_SUCH_OPERATOR = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, x):
        return torch.special.bessel_j0(self.conv(x))
"""


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (DATA_DEPENDENT, "torch.export cannot follow its code: .*data-dependent"),
        (NO_SUCH_OPERATOR, "PyTorch cannot write it as ONNX: .*bessel_j0"),
    ],
)
def test_code_that_cannot_be_exported_is_refused_in_one_line(package_of, tmp_path, capfd, source, words) -> None:
    package = package_of(source)
    capfd.readouterr()
    with pytest.raises(InputError, match=rf"^network\.factory SmallCode\w+\.nets:Net: .*{words}") as refusal:
        exported(package, tmp_path / "out")
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")
    assert list((tmp_path / "out").iterdir()) == []


# --- what must be installed -------------------------------------------------------------------------------------------


def test_export_without_a_runtime_to_compare_with_is_refused(unet_package, tmp_path, monkeypatch) -> None:
    for library in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingPluginError, match=r"compared with PyTorch: pip install 'innereye-onnx\[cpu\]'"):
        exported(unet_package, tmp_path / "out")


def test_float16_needs_the_runtime_that_has_it(unet_package, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPluginError, match="a network in fp16 could be compared"):
        exported(unet_package, tmp_path / "out", "fp16")


def test_export_without_pytorchs_exporter_says_what_to_install(unet_package, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingPluginError, match=r"onnxscript: pip install 'innereye-onnx\[cpu,export\]'"):
        exported(unet_package, tmp_path / "out")
