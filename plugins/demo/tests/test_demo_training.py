"""The training loop: checkpoints that can be deployed, the same each time, and nothing else changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from innereye_core.config_files import read_model_config
from innereye_core.host import Host
from innereye_demo.brain import Brain
from innereye_demo.regions import splits
from innereye_demo.run_folder import MODEL_CONFIG, Subject, write_dataset
from innereye_demo.training import Schedule, segmentation_loss, train
from innereye_segmentation.checkpoints.reading import load_weights, read_checkpoint
from innereye_segmentation.networks.factory import build_network

SHORT = Schedule(epochs=2, steps_per_epoch=2, patches_per_step=2, patch_size_zyx=(8, 8, 8))


@pytest.fixture(scope="module")
def subjects(brain: Brain, tmp_path_factory: pytest.TempPathFactory) -> tuple[Subject, ...]:
    return write_dataset(tmp_path_factory.mktemp("run"), brain, splits(brain, 3)[1])


@pytest.fixture
def train_briefly(subjects: tuple[Subject, ...], providers: Host) -> Callable[[Path], Path]:
    """Trains a few steps; the folder of checkpoints is made."""

    def run(checkpoints: Path, schedule: Schedule = SHORT) -> Path:
        checkpoints.mkdir()
        train(subjects[:-1], read_model_config(MODEL_CONFIG), checkpoints, providers, schedule, lambda steps: None)
        return checkpoints

    return run


def test_regions_are_listed_as_subjects(subjects: tuple[Subject, ...]) -> None:
    assert [(subject.name, subject.split) for subject in subjects] == [
        ("posterior", "train"),
        ("anterior", "train"),
        ("held_out", "val"),
    ]


def test_every_epoch_has_a_checkpoint_with_its_optimizer(train_briefly: Callable[[Path], Path], tmp_path: Path) -> None:
    checkpoints = train_briefly(tmp_path / "checkpoints")

    assert sorted(path.name for path in checkpoints.iterdir()) == ["1_checkpoint.pth.tar", "2_checkpoint.pth.tar"]
    content = torch.load(checkpoints / "2_checkpoint.pth.tar", weights_only=True)
    assert set(content) == {"epoch", "state_dict", "opt_dict"}
    assert content["epoch"] == 2


def test_checkpoints_load_into_the_network_of_the_config(train_briefly: Callable[[Path], Path], tmp_path: Path) -> None:
    network = build_network(read_model_config(MODEL_CONFIG).network)

    load_weights(network, train_briefly(tmp_path / "checkpoints") / "1_checkpoint.pth.tar")


def test_training_twice_gives_the_same_weights(train_briefly: Callable[[Path], Path], tmp_path: Path) -> None:
    folders = [train_briefly(tmp_path / name) for name in ("first", "second")]

    first, second = (read_checkpoint(folder / "2_checkpoint.pth.tar").weights for folder in folders)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_epochs_differ(train_briefly: Callable[[Path], Path], tmp_path: Path) -> None:
    checkpoints = train_briefly(tmp_path / "checkpoints")

    first, second = (read_checkpoint(checkpoints / f"{epoch}_checkpoint.pth.tar").weights for epoch in (1, 2))
    assert not torch.equal(first["output_layer.weight"], second["output_layer.weight"])


def test_random_numbers_and_threads_of_the_process_are_left_alone(
    train_briefly: Callable[[Path], Path], tmp_path: Path
) -> None:
    before = torch.get_rng_state(), torch.get_num_threads()

    train_briefly(tmp_path / "checkpoints")

    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]


def test_loss_is_zero_for_a_certain_and_right_answer() -> None:
    classes = torch.arange(27).reshape(1, 3, 3, 3) % 3
    scores = torch.nn.functional.one_hot(classes, 3).movedim(-1, 1) * 100.0

    assert segmentation_loss(scores, classes).item() == pytest.approx(0, abs=1e-6)


def test_loss_is_one_and_more_for_a_certain_and_wrong_answer() -> None:
    classes = torch.arange(27).reshape(1, 3, 3, 3) % 3
    scores = torch.nn.functional.one_hot((classes + 1) % 3, 3).movedim(-1, 1) * 100.0

    assert segmentation_loss(scores, classes).item() > 100
