"""Checkpoints are read without running code inside, and refused with one line that says what is wrong."""

from __future__ import annotations

import argparse
import logging
import os
import pathlib
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from innereye_core.errors import InputError, IntegrityError
from innereye_segmentation.checkpoints.reading import epoch_of, load_weights, read_checkpoint

WEIGHTS = {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])}


def unit() -> nn.Linear:
    return nn.Linear(2, 1)


def save(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in WEIGHTS.items()}


class Payload:
    """Would create a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


# --- what is read -----------------------------------------------------------------------------------------------------


def test_innereyes_file_holds_weights_epoch_and_an_optimizer(golden: Path) -> None:
    checkpoint = read_checkpoint(golden / "unet3d" / "3_checkpoint.pth.tar")
    assert checkpoint.stored_epoch == 3
    assert checkpoint.removed == ("opt_dict",)
    assert len(checkpoint.weights) == 78


def test_lightnings_file_keeps_its_keys(golden: Path) -> None:
    checkpoint = read_checkpoint(golden / "unet3d" / "unet3d_a.ckpt")
    assert checkpoint.stored_epoch == 1
    assert all(key.startswith("model.") for key in checkpoint.weights)
    assert "optimizer_states" in checkpoint.removed


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older format"])
@pytest.mark.parametrize("name", ["4_checkpoint.pth.tar", "epoch_4.pt"])
def test_a_bare_state_dict_is_read(tmp_path: Path, name: str, zipped: bool) -> None:
    path = save(tmp_path / name, WEIGHTS, _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(path)
    assert checkpoint.weights.keys() == WEIGHTS.keys()
    assert (checkpoint.stored_epoch, checkpoint.wrapped) == (None, False)
    assert epoch_of(path) == 4


def test_safetensors_are_read_with_the_epoch_of_their_metadata(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    safetensors.torch.save_file(WEIGHTS, path, {"epoch": "6", "author": "somebody"})
    checkpoint = read_checkpoint(path)
    assert torch.equal(checkpoint.weights["bias"], WEIGHTS["bias"])
    assert checkpoint.removed == ("metadata author",)
    assert epoch_of(path) == checkpoint.stored_epoch == 6


def test_the_mean_teachers_weights_are_taken_as_innereye_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    teacher = {key: tensor + 1 for key, tensor in WEIGHTS.items()}
    content = {"epoch": 5, "state_dict": WEIGHTS, "opt_dict": {}, "mean_teacher_state_dict": teacher}
    path = save(tmp_path / "5_checkpoint.pth.tar", content)
    with caplog.at_level(logging.INFO, logger="innereye_segmentation"):
        checkpoint = read_checkpoint(path)
    assert torch.equal(checkpoint.weights["bias"], teacher["bias"])
    assert checkpoint.removed == ("opt_dict", "state_dict")
    assert "mean teacher" in checkpoint.notes[0]
    assert "mean teacher" in caplog.text


# --- epochs -----------------------------------------------------------------------------------------------------------


def test_the_number_in_innereyes_name_is_the_epoch_whatever_is_stored(tmp_path: Path) -> None:
    path = save(tmp_path / "7_checkpoint.pth.tar", {"epoch": 99, "state_dict": WEIGHTS})
    assert epoch_of(path) == 7
    assert read_checkpoint(path).stored_epoch == 99


def test_lightnings_epoch_is_the_stored_one_whatever_the_name_says(tmp_path: Path) -> None:
    assert epoch_of(save(tmp_path / "epoch=3-step=4.ckpt", {"epoch": 2, "state_dict": prefixed("model.")})) == 2


def test_without_a_number_in_the_name_the_stored_epoch_counts(tmp_path: Path) -> None:
    assert epoch_of(save(tmp_path / "best.pth", {"epoch": 8, "state_dict": WEIGHTS})) == 8


@pytest.mark.parametrize(
    ("name", "content", "remedy"),
    [
        ("best.pt", WEIGHTS, "rename it, for example to 12_checkpoint.pt"),
        ("best_checkpoint.pth.tar", {"state_dict": WEIGHTS}, "rename it"),
        ("last.ckpt", {"state_dict": WEIGHTS}, "save it with one"),
        ("last.ckpt", {"epoch": True, "state_dict": WEIGHTS}, "save it with one"),
        ("last.ckpt", {"epoch": -1, "state_dict": WEIGHTS}, "save it with one"),
        ("last.ckpt", [1, 2], "save it with one"),
    ],
)
def test_a_file_without_an_epoch_is_refused_with_a_remedy(tmp_path: Path, name: str, content: Any, remedy: str) -> None:
    with pytest.raises(InputError, match=f"{name}: states no epoch; {remedy}"):
        epoch_of(save(tmp_path / name, content))


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}], ids=str)
def test_pickled_classes_are_named_in_order_and_never_run(tmp_path: Path, options: dict[str, Any]) -> None:
    content = {
        "state_dict": WEIGHTS,
        "path": pathlib.PurePosixPath("x"),
        "arguments": argparse.Namespace(depth=1),
        "payload": Payload(tmp_path / "created"),
    }
    path = save(tmp_path / "1_checkpoint.pth.tar", content, **options)
    classes = f"argparse.Namespace, pathlib.PurePosixPath, {os.mkdir.__module__}.mkdir;"
    with pytest.raises(InputError, match=f"holds pickled classes, which are never loaded: {classes}") as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "created").exists()


def test_a_plain_pickle_is_refused_with_its_classes_named(tmp_path: Path) -> None:
    path = tmp_path / "epoch_1.pt"
    path.write_bytes(pickle.dumps([argparse.Namespace(a=argparse.Namespace()), pathlib.PurePosixPath("x")]))
    with pytest.raises(
        InputError, match=r"classes, which are never loaded: argparse.Namespace, pathlib.PurePosixPath;"
    ):
        read_checkpoint(path)


def test_numpy_scalars_beside_the_weights_are_named(tmp_path: Path) -> None:
    path = save(tmp_path / "last.ckpt", {"epoch": 1, "state_dict": WEIGHTS, "score": np.float64(0.5)})
    with pytest.raises(InputError, match=r"multiarray.scalar, numpy.dtype; save the network's state_dict\(\) alone"):
        read_checkpoint(path)


def test_a_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"never loaded: torch.nn.modules.linear.Linear;"):
        read_checkpoint(save(tmp_path / "epoch_1.pt", unit()))


def damaged(content: bytes) -> bytes:
    middle = content.index(WEIGHTS["weight"].numpy().tobytes())
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("zipped", "damage"),
    [
        (True, lambda content: b""),
        (True, lambda content: b"version https://git-lfs.github.com/spec/v1\n"),
        (True, lambda content: content[: len(content) // 2]),
        (True, lambda content: content[:-30]),
        (True, damaged),
        (False, lambda content: content[: len(content) // 2]),
        (False, lambda content: content[:-3]),
    ],
    ids=["empty", "text", "half", "end missing", "one bit", "older format, half", "older format, end missing"],
)
def test_a_damaged_file_is_refused(tmp_path: Path, zipped: bool, damage: Callable[[bytes], bytes]) -> None:
    path = save(tmp_path / "1_checkpoint.pth.tar", {"state_dict": WEIGHTS}, _use_new_zipfile_serialization=zipped)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"1_checkpoint.pth.tar: is corrupt") as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)


def test_an_archive_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "epoch_1.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match="is corrupt or no PyTorch checkpoint"):
        read_checkpoint(tmp_path / "epoch_1.pt")


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.trace(unit(), torch.zeros(1, 2))  # type: ignore[no-untyped-call]
        script.save(tmp_path / "epoch_1.pt")
    with pytest.raises(InputError, match=r"epoch_1.pt: "):
        read_checkpoint(tmp_path / "epoch_1.pt")


@pytest.mark.parametrize("content", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{", b"garbage, and more of it"])
def test_damaged_safetensors_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "epoch_1.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="is corrupt or no safetensors file"):
        read_checkpoint(tmp_path / "epoch_1.safetensors")


@pytest.mark.parametrize("name", ["1_checkpoint.pth.tar", "last.ckpt", "epoch_1.safetensors"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: cannot be read: No such file"):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds list, not weights"),
        ({}, "holds an empty dict, not weights"),
        ({"epoch": 1, "model": WEIGHTS}, r"has no weights under 'state_dict' \(entries: epoch, model\)"),
        ({"epoch": 1, "state_dict": {}}, "has no weights under 'state_dict'"),
        ({"state_dict": {"weight": [1.0, 2.0]}}, r"entry 'weight' of the weights \(list\) is no named tensor"),
        ({"state_dict": {3: torch.ones(1)}}, r"entry 3 of the weights \(Tensor\) is no named tensor"),
        ({"state_dict": WEIGHTS, "mean_teacher_state_dict": None}, "no weights under 'mean_teacher_state_dict'"),
    ],
)
def test_a_file_without_weights_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_checkpoint(save(tmp_path / "1_checkpoint.pth.tar", content))


def test_safetensors_without_weights_are_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({}, tmp_path / "epoch_1.safetensors")
    with pytest.raises(InputError, match="holds no weights"):
        read_checkpoint(tmp_path / "epoch_1.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["1_checkpoint.pth.tar", "epoch_1.safetensors"])
def test_a_weight_that_is_not_finite_is_refused_with_its_key(tmp_path: Path, name: str, value: float) -> None:
    weights = {**WEIGHTS, "bias": torch.tensor([value])}
    if name.endswith("safetensors"):
        safetensors.torch.save_file(weights, tmp_path / name)
    else:
        save(tmp_path / name, {"epoch": 1, "state_dict": weights})
    with pytest.raises(IntegrityError, match="weight 'bias' has NaN or infinite values; choose another epoch"):
        read_checkpoint(tmp_path / name)


# --- loading into a network -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("1_checkpoint.pth.tar", ""),
        ("1_checkpoint.pth.tar", "module."),
        ("last.ckpt", "model."),
        ("last.ckpt", "model.module."),
        ("last.ckpt", ""),
        ("epoch_1.pt", "module."),
    ],
)
def test_prefixes_of_training_wrappers_are_taken_off(tmp_path: Path, name: str, prefix: str) -> None:
    network = unit()
    load_weights(network, save(tmp_path / name, {"epoch": 1, "state_dict": prefixed(prefix)}))
    assert torch.equal(network.weight, WEIGHTS["weight"])


def test_a_prefix_that_is_the_networks_own_stays(tmp_path: Path) -> None:
    network = nn.Sequential()
    network.add_module("module", unit())
    load_weights(network, save(tmp_path / "epoch_1.pt", prefixed("module.")))
    assert torch.equal(network.state_dict()["module.weight"], WEIGHTS["weight"])


def test_a_prefix_that_only_some_keys_have_is_refused(tmp_path: Path) -> None:
    weights = {"module.weight": WEIGHTS["weight"], "bias": WEIGHTS["bias"]}
    with pytest.raises(InputError, match=r"1 missing: weight; 1 unexpected: module.weight"):
        load_weights(unit(), save(tmp_path / "epoch_1.pt", weights))


def test_keys_that_do_not_fit_are_counted_and_three_of_each_kind_named(tmp_path: Path) -> None:
    weights = {f"extra{i}": torch.zeros(1) for i in range(5)} | {"bias": torch.zeros(2)}
    path = save(tmp_path / "1_checkpoint.pth.tar", {"state_dict": weights})
    with pytest.raises(InputError) as error:
        load_weights(unit(), path)
    assert str(error.value) == (
        f"{path}: does not fit the network; keys 1 missing: weight; 5 unexpected: extra0, extra1, extra2, …; "
        "1 of another shape: bias ((2,), the network has (1,)); check network.factory and network.arguments"
    )


def test_a_network_that_refuses_to_load_is_reported_in_one_line(tmp_path: Path) -> None:
    class Refusing(nn.Linear):
        def _load_from_state_dict(self, *arguments: Any) -> None:
            arguments[-1].append("made for\nanother version")

    with pytest.raises(InputError, match=r"does not fit the network: .*made for another version"):
        load_weights(Refusing(2, 1), save(tmp_path / "epoch_1.pt", WEIGHTS))
