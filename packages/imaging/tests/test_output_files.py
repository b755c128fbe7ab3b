"""Result files appear whole or not at all, also where the disk fails."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from innereye_core.errors import InputError, StorageError, UsageError
from innereye_imaging.geometry import Image
from innereye_imaging.nifti import Nifti
from innereye_imaging.output_files import open_output, open_output_file, write_files, write_images

IMAGE = Image(np.random.default_rng(0).integers(0, 255, (20, 30, 30)).astype(np.uint8), np.eye(4))

PROGRAM = """
import os, sys, numpy as np
from pathlib import Path
from innereye_core.errors import StorageError
from innereye_imaging.geometry import Image
from innereye_imaging.nifti import Nifti
from innereye_imaging.output_files import open_output, write_images

voxels = np.random.default_rng(0).integers(0, 255, (20, 30, 30)).astype(np.uint8)
if len(sys.argv) > 3:
    write_images([(open_output(Path(sys.argv[3]), [Nifti()], True), Image(voxels, np.eye(4)))])  # all is imported now
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    output = open_output(Path(sys.argv[1]), [Nifti()], overwrite=True)
    print("opened", flush=True)
    while True:
        write_images([(output, Image(voxels, np.eye(4)))])
        if sys.argv[2] == "once":
            break
except StorageError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def run(path: Path, *arguments: str, **others: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), "once", *arguments],
        capture_output=True, text=True, check=False, timeout=60, **others,
    )  # fmt: skip


def test_several_files_are_written_together(tmp_path: Path) -> None:
    outputs = [open_output(tmp_path / name, [Nifti()], overwrite=False) for name in ("a.nii.gz", "b.nii")]
    write_images([(output, IMAGE) for output in outputs])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", "b.nii"]


def test_opening_leaves_nothing_behind(tmp_path: Path) -> None:
    open_output(tmp_path / "a.nii.gz", [Nifti()], overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_images_and_other_files_appear_together_in_a_folder_that_is_made_for_them(tmp_path: Path) -> None:
    image = open_output(tmp_path / "new" / "a.nii", [Nifti()], overwrite=False, makes_folder=True)
    text = open_output_file(tmp_path / "b.txt", (".txt",), overwrite=False)

    def write(path: Path) -> None:
        assert not (tmp_path / "new").exists()
        path.write_text("words")

    write_files([image.holding(IMAGE), (text, write)])
    assert (tmp_path / "new" / "a.nii").is_file()
    assert text.path.read_text() == "words"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    image = open_output(tmp_path / "new" / "a.nii", [Nifti()], overwrite=False, makes_folder=True)
    text = open_output_file(tmp_path / "b.txt", (".txt",), overwrite=False)

    def fail(path: Path) -> None:
        path.write_text("half")
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        write_files([image.holding(IMAGE), (text, fail)])
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"b\.txt: must end in \.json or \.csv, which says what is written"):
        open_output_file(tmp_path / "b.txt", (".json", ".csv"), overwrite=False)


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    output = open_output(tmp_path / "a.nii.gz", [Nifti()], overwrite=False)
    output.path.write_bytes(b"somebody else's")
    with pytest.raises(InputError, match="exists already"):
        write_images([(output, IMAGE)])
    assert output.path.read_bytes() == b"somebody else's"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    """A process that may write only small files stands for the full disk."""
    (tmp_path / name).write_bytes(b"old")
    completed = run(tmp_path / name, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000)))
    assert completed.returncode == StorageError.exit_code
    assert "File too large; raise the limit on file sizes" in completed.stdout
    assert "opened" in completed.stdout
    assert (tmp_path / name).read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="dropping privileges needs root")
@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["not writable", "not even readable"])
def test_a_folder_without_permission_is_noticed_before_any_work(tmp_path: Path, mode: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(mode)
        completed = run(Path(folder) / "a.nii.gz", str(tmp_path / "as_root.nii.gz"))
    assert completed.returncode == StorageError.exit_code, completed.stderr
    assert "Permission denied" in completed.stdout
    assert "opened" not in completed.stdout


def test_a_killed_process_leaves_a_complete_file(tmp_path: Path) -> None:
    """Writing without end, killed at some moment: the file is the old one or the new one."""
    path = tmp_path / "a.nii.gz"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), "for ever"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(100):
            if path.exists():
                break
            time.sleep(0.02)
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    np.testing.assert_array_equal(Nifti().read(path).voxels, IMAGE.voxels)


def test_errors_that_are_not_the_disks_are_not_disguised(tmp_path: Path) -> None:
    class Failing(Nifti):
        def write(self, path: Path, image: object) -> None:
            raise OSError("a bug")

    with pytest.raises(OSError, match="a bug"):
        open_output(tmp_path / "a.nii.gz", [Failing()], overwrite=False)
