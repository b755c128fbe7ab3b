"""What a run offers for deployment: one candidate per epoch that has a checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from innereye_core.candidates import has_candidates, list_candidates
from innereye_core.errors import InputError, MissingPluginError
from innereye_core.host import Host
from innereye_core.model import Candidate, Run

Add = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("r1", "run", tmp_path / "run", "local")


@pytest.fixture
def add(run: Run) -> Add:
    """Add a checkpoint file to the run."""

    def write(name: str, epoch: int = 1, threshold: float = 0.5) -> Path:
        path = run.folder / "checkpoints" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"epoch": epoch, "weights": {"threshold": threshold}}))
        return path

    return write


def test_number_in_the_name_is_the_epoch_whatever_is_stored_inside(run: Run, add: Add, host: Host) -> None:
    path = add("7_checkpoint.pth.tar", epoch=3)
    assert list_candidates(run, host.checkpoint_formats()) == (Candidate(7, path, "toy-numbered"),)


def test_epoch_of_a_lightning_checkpoint_is_the_stored_one(run: Run, add: Add, host: Host) -> None:
    path = add("best_checkpoint.ckpt", epoch=12)
    assert list_candidates(run, host.checkpoint_formats()) == (Candidate(12, path, "toy-lightning"),)


def test_candidates_come_in_numeric_order(run: Run, add: Add, host: Host) -> None:
    for epoch in (10, 9, 100):
        add(f"{epoch}_checkpoint.pth.tar")
    assert [candidate.epoch for candidate in list_candidates(run, host.checkpoint_formats())] == [9, 10, 100]


def test_numbered_checkpoints_are_not_opened_to_list_them(run: Run, add: Add, host: Host, opened: list[str]) -> None:
    add("1_checkpoint.pth.tar").write_bytes(b"\x00 garbage")

    list_candidates(run, host.checkpoint_formats())

    assert opened == []


def test_only_the_epochs_asked_for_are_candidates(run: Run, add: Add, host: Host) -> None:
    for epoch in (1, 2, 3):
        add(f"{epoch}_checkpoint.pth.tar")
    assert [c.epoch for c in list_candidates(run, host.checkpoint_formats(), [3, 1, 3])] == [1, 3]


def test_epoch_asked_for_without_a_checkpoint(run: Run, add: Add, host: Host) -> None:
    for epoch in (1, 2):
        add(f"{epoch}_checkpoint.pth.tar")
    with pytest.raises(InputError, match=r"run: epoch 5 of the epochs to test has no checkpoint; there are 1, 2$"):
        list_candidates(run, host.checkpoint_formats(), [1, 5])


@pytest.mark.parametrize("copy", ["last.ckpt", "last-v1.ckpt", "recovery.ckpt", "recovery_epoch=4.ckpt"])
def test_file_that_repeats_an_epoch_is_the_same_candidate(run: Run, add: Add, host: Host, copy: str) -> None:
    add(copy, epoch=4, threshold=0.25)
    path = add("zz_checkpoint.ckpt", epoch=4)
    assert list_candidates(run, host.checkpoint_formats()) == (Candidate(4, path, "toy-lightning"),)


def test_last_is_a_candidate_where_it_is_the_only_file_of_its_epoch(run: Run, add: Add, host: Host) -> None:
    add("best_checkpoint.ckpt", epoch=4)
    add("last.ckpt", epoch=9)
    assert [c.checkpoint.name for c in list_candidates(run, host.checkpoint_formats())] == [
        "best_checkpoint.ckpt",
        "last.ckpt",
    ]


def test_equal_files_of_one_epoch_are_one_candidate(run: Run, add: Add, host: Host) -> None:
    first = add("a.ckpt", epoch=4)
    add("b.ckpt", epoch=4)
    assert list_candidates(run, host.checkpoint_formats()) == (Candidate(4, first, "toy-lightning"),)


@pytest.mark.parametrize("different", ["b.ckpt", "c.ckpt"])
def test_different_files_of_one_epoch_are_refused(run: Run, add: Add, host: Host, different: str) -> None:
    for name in ("a.ckpt", "b.ckpt", "c.ckpt"):
        add(name, epoch=4, threshold=0.9 if name == different else 0.5)
    with pytest.raises(InputError, match=rf"checkpoints: a\.ckpt and {different} both are epoch 4, and differ"):
        list_candidates(run, host.checkpoint_formats())


def test_other_files_hidden_files_and_folders_are_no_candidates(run: Run, add: Add, host: Host) -> None:
    add("1_checkpoint.pth.tar")
    add("notes.txt")
    add(".2_checkpoint.pth.tar")
    (run.folder / "checkpoints" / "3_checkpoint.pth.tar").mkdir()
    assert [candidate.epoch for candidate in list_candidates(run, host.checkpoint_formats())] == [1]


def test_run_without_a_checkpoints_folder(run: Run, host: Host) -> None:
    run.folder.mkdir()
    with pytest.raises(InputError, match=r"run: has no checkpoint; put files such as checkpoints/1_checkpoint"):
        list_candidates(run, host.checkpoint_formats())


def test_run_without_any_known_checkpoint(run: Run, add: Add, host: Host) -> None:
    add("weights.h5")
    with pytest.raises(InputError, match=r"run: has no checkpoint"):
        list_candidates(run, host.checkpoint_formats())


def test_checkpoints_that_may_not_be_read(run: Run, add: Add, host: Host, as_nobody: Callable[..., str]) -> None:
    formats = host.checkpoint_formats()
    checkpoints = add("1_checkpoint.pth.tar").parent
    checkpoints.chmod(0o000)
    outcome = as_nobody(run.folder, lambda: list_candidates(run, formats))
    checkpoints.chmod(0o700)
    assert re.fullmatch(r"InputError: .*run/checkpoints: cannot be read: Permission denied; make it readable", outcome)


def test_no_plugin_that_reads_checkpoints(run: Run, add: Add) -> None:
    add("1_checkpoint.pth.tar")
    with pytest.raises(MissingPluginError, match=r"pip install innereye-imaging innereye-segmentation$"):
        list_candidates(run, Host().checkpoint_formats())


def test_file_that_two_formats_recognise(run: Run, add: Add, toy: Path, install: Callable[..., str]) -> None:
    install(
        "acme",
        """
        from innereye_core import hookimpl

        @hookimpl
        def innereye_checkpoint_formats():
            from toy_innereye.checkpoints import NumberedCheckpoints

            class Greedy(NumberedCheckpoints):
                name = "greedy"
                def recognises(self, path):
                    return True

            return [Greedy]
        """,
    )
    add("1_checkpoint.pth.tar")
    with pytest.raises(InputError, match=r"1_checkpoint\.pth\.tar: is recognised by .* greedy and toy-numbered; block"):
        list_candidates(run, Host().checkpoint_formats())


def test_whether_there_are_candidates_is_known_without_opening_files(
    run: Run, add: Add, host: Host, opened: list[str]
) -> None:
    assert not has_candidates(run, host.checkpoint_formats())
    add("last.ckpt").write_bytes(b"garbage")
    assert has_candidates(run, host.checkpoint_formats())
    assert opened == []
