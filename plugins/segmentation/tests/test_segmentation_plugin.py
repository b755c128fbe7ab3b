"""What the plugin offers through the hooks, without importing torch for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

import innereye_segmentation
from innereye_core.host import Host


def test_the_plugin_offers_formats_runtime_and_evaluator_under_their_names(providers: Host) -> None:
    formats = {found.name: found.stitching_must_be_named for found in providers.checkpoint_formats()}
    assert formats == {"innereye": False, "lightning": True, "state-dict": False, "safetensors": False}
    assert [runtime.name for runtime in providers.runtimes()] == ["torch"]
    assert [(found.name, found.priority) for found in providers.evaluators() if found.name == "network"] == [
        ("network", 0)
    ]


def test_a_file_is_recognised_by_one_format_only(providers: Host, tmp_path: Path) -> None:
    for name in ("1_checkpoint.pth.tar", "last.ckpt", "epoch_1.pt", "epoch_1.pth", "epoch_1.safetensors"):
        assert sum(found.recognises(tmp_path / name) for found in providers.checkpoint_formats()) == 1
    assert not any(found.recognises(tmp_path / "model.onnx") for found in providers.checkpoint_formats())


def test_a_format_tells_the_epoch_and_writes_the_packaged_form(providers: Host, tmp_path: Path) -> None:
    torch.save({"epoch": 4, "state_dict": {"weight": torch.ones(1)}, "optimizer_states": []}, tmp_path / "last.ckpt")
    (lightning,) = (found for found in providers.checkpoint_formats() if found.recognises(tmp_path / "last.ckpt"))
    assert lightning.epoch(tmp_path / "last.ckpt") == 4
    packaged = lightning.write_packaged(tmp_path / "last.ckpt", tmp_path / "packaged.ckpt")
    assert packaged.removed == ("optimizer_states",)
    assert lightning.epoch(tmp_path / "packaged.ckpt") == 4


def test_the_package_itself_travels_with_a_model(providers: Host) -> None:
    (source,) = (found for found in providers.toolbox_sources() if found.import_name == "innereye_segmentation")
    assert (source.section, source.plugin_module) == ("ML", "innereye_segmentation.plugin")
    assert source.version == innereye_segmentation.__version__
    assert (source.folder / "plugin.py").is_file()


def test_hooks_epochs_in_names_and_the_rank_on_a_cpu_need_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from innereye_segmentation import plugin\n"
        "plugin.innereye_toolbox_sources()\n"
        "formats = plugin.innereye_checkpoint_formats()\n"
        "assert formats[0].recognises(Path('3_checkpoint.pth.tar'))\n"
        "evaluator = plugin.innereye_evaluators()[0]()\n"
        "from types import SimpleNamespace\n"
        "model = SimpleNamespace(checkpoints=(Path('3_checkpoint.pth.tar'),))\n"
        "assert plugin.innereye_runtimes()[0]().rank(model, 'cpu') > 0\n"
        "print(sorted({'torch', 'numpy', 'safetensors', 'pydantic', 'innereye_imaging'} & set(sys.modules)))\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"
