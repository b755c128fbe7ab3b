"""The packaged form of a checkpoint: the same weights in the same kind of file, and nothing else."""

from __future__ import annotations

import hashlib
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from innereye_core.errors import InputError, IntegrityError, StorageError
from innereye_segmentation.checkpoints.packaging import write_packaged
from innereye_segmentation.checkpoints.reading import read_checkpoint

WEIGHTS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


def stored(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(("name", "epoch"), [("3_checkpoint.pth.tar", 3), ("unet3d_a.ckpt", 1)])
def test_epoch_and_weights_stay_with_their_keys_and_the_rest_goes(
    golden: Path, tmp_path: Path, name: str, epoch: int
) -> None:
    source, target = golden / "unet3d" / name, tmp_path / name
    packaged = write_packaged(source, target)
    content = stored(target)
    assert set(content) == {"epoch", "state_dict"}
    assert content["epoch"] == epoch
    assert_equal(content["state_dict"], stored(source)["state_dict"])
    assert target.stat().st_size < source.stat().st_size / 2
    assert packaged.source_name == name
    assert packaged.source_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert packaged.source_size == source.stat().st_size
    assert packaged.stored_epoch == epoch
    assert set(packaged.removed) == set(stored(source)) - {"epoch", "state_dict"}


def test_the_stored_epoch_is_recorded_where_the_name_says_another(tmp_path: Path) -> None:
    torch.save({"epoch": 99, "state_dict": WEIGHTS}, tmp_path / "7_checkpoint.pth.tar")
    assert write_packaged(tmp_path / "7_checkpoint.pth.tar", tmp_path / "out.pth.tar").stored_epoch == 99


def test_the_mean_teacher_is_packaged_as_the_weights_and_said_so(tmp_path: Path) -> None:
    teacher = {key: tensor + 1 for key, tensor in WEIGHTS.items()}
    source, target = tmp_path / "5_checkpoint.pth.tar", tmp_path / "out.pth.tar"
    torch.save({"epoch": 5, "state_dict": WEIGHTS, "opt_dict": {}, "mean_teacher_state_dict": teacher}, source)
    packaged = write_packaged(source, target)
    assert set(stored(target)) == {"epoch", "state_dict"}
    assert_equal(stored(target)["state_dict"], teacher)
    assert packaged.removed == ("opt_dict", "state_dict")
    assert "mean_teacher_state_dict" in packaged.notes[0]


def test_a_bare_state_dict_stays_bare(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "epoch_4.pt")
    packaged = write_packaged(tmp_path / "epoch_4.pt", tmp_path / "out.pt")
    assert_equal(stored(tmp_path / "out.pt"), WEIGHTS)
    assert (packaged.stored_epoch, packaged.removed) == (None, ())


def test_a_bare_state_dict_under_innereyes_name_gets_innereyes_container(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "4_checkpoint.pth.tar")
    write_packaged(tmp_path / "4_checkpoint.pth.tar", tmp_path / "out.pth.tar")
    assert stored(tmp_path / "out.pth.tar")["epoch"] == 4


def test_safetensors_stay_safetensors_with_the_epoch_alone(tmp_path: Path) -> None:
    safetensors.torch.save_file(WEIGHTS, tmp_path / "epoch_6.safetensors", {"author": "somebody"})
    packaged = write_packaged(tmp_path / "epoch_6.safetensors", tmp_path / "out.safetensors")
    checkpoint = read_checkpoint(tmp_path / "out.safetensors")
    assert checkpoint.stored_epoch == 6
    assert checkpoint.removed == ()
    assert all(torch.equal(checkpoint.weights[key], WEIGHTS[key]) for key in WEIGHTS)
    assert packaged.removed == ("metadata author",)


@pytest.mark.parametrize("name", ["4_checkpoint.pth.tar", "epoch_4.safetensors"])
def test_equal_weights_give_equal_bytes_also_when_packaged_again(tmp_path: Path, name: str) -> None:
    (tmp_path / "again").mkdir()
    if name.endswith("safetensors"):
        safetensors.torch.save_file(WEIGHTS, tmp_path / name, {"epoch": "4"})
    else:
        torch.save({"epoch": 4, "state_dict": WEIGHTS, "opt_dict": {"lr": 1}}, tmp_path / name)
    outputs = [tmp_path / "first", tmp_path / "second", tmp_path / "third"]
    write_packaged(tmp_path / name, outputs[0])
    write_packaged(tmp_path / name, outputs[1])
    (tmp_path / "again" / name).write_bytes(outputs[0].read_bytes())
    write_packaged(tmp_path / "again" / name, outputs[2])
    assert len({path.read_bytes() for path in outputs}) == 1


def test_a_view_takes_nothing_else_of_its_storage_along(tmp_path: Path) -> None:
    everything = torch.arange(1000.0)
    torch.save({"epoch": 1, "state_dict": {"weight": everything[:2]}}, tmp_path / "1_checkpoint.pth.tar")
    write_packaged(tmp_path / "1_checkpoint.pth.tar", tmp_path / "out.pth.tar")
    assert len(stored(tmp_path / "out.pth.tar")["state_dict"]["weight"].untyped_storage()) == 2 * 4


def test_the_versions_of_modules_stay_because_loading_may_depend_on_them(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "state_dict": torch.nn.BatchNorm3d(2).state_dict()}, tmp_path / "1_checkpoint.pth.tar")
    write_packaged(tmp_path / "1_checkpoint.pth.tar", tmp_path / "out.pth.tar")
    assert stored(tmp_path / "out.pth.tar")["state_dict"]._metadata == {"": {"version": 2}}


def test_nothing_is_written_of_a_checkpoint_that_cannot_be_used(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "state_dict": {"weight": torch.tensor([float("nan")])}}, tmp_path / "1_checkpoint.pth.tar")
    with pytest.raises(IntegrityError):
        write_packaged(tmp_path / "1_checkpoint.pth.tar", tmp_path / "out.pth.tar")
    torch.save(WEIGHTS, tmp_path / "best.pt")
    with pytest.raises(InputError, match="states no epoch"):
        write_packaged(tmp_path / "best.pt", tmp_path / "out.pt")
    assert not list(tmp_path.glob("out*"))


def test_a_target_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "epoch_1.pt")
    with pytest.raises(StorageError, match=r"missing.out.pt: cannot be written: No such file"):
        write_packaged(tmp_path / "epoch_1.pt", tmp_path / "missing" / "out.pt")


@pytest.mark.parametrize("name", ["1_checkpoint.pth.tar", "epoch_1.safetensors"])
def test_a_disk_that_runs_full_is_a_storage_error(tmp_path: Path, name: str) -> None:
    weights = {"weight": torch.zeros(1 << 18)}
    if name.endswith("safetensors"):
        safetensors.torch.save_file(weights, tmp_path / name)
    else:
        torch.save({"epoch": 1, "state_dict": weights}, tmp_path / name)
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from innereye_core.errors import StorageError\n"
        "from innereye_segmentation.checkpoints.packaging import write_packaged\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))\n"
        "try: write_packaged(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "except StorageError as error: print(error)\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    command = [sys.executable, "-c", code, str(tmp_path / name), str(tmp_path / "out")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output == f"{tmp_path / 'out'}: cannot be written: File too large; free space or choose another folder\n"
