"""A published folder or file is the old one or the new one at every moment, and nothing is left behind."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from child_processes import fork, in_child, kill_at_line, lines_of

from innereye_core import publishing
from innereye_core.errors import RegistryError, StorageError
from innereye_core.publishing import (
    TargetExistsError,
    make_folder,
    publish,
    refuse_existing,
    staged_folder,
    storage_errors,
    write_file_atomically,
)

NOBODY = 65534
FILES = 5


def publish_generation(target: Path, generation: int, *, replace: bool) -> None:
    """Publish a folder whose files all say which generation they belong to."""
    with staged_folder(target) as staged:
        for i in range(FILES):
            (staged / f"{i}.txt").write_text(str(generation))
        publish(staged, target, replace=replace)


def generations(folder: Path) -> set[str]:
    return {(folder / f"{i}.txt").read_text() for i in range(FILES)}


def leftovers(parent: Path) -> list[str]:
    return [path.name for path in parent.iterdir() if path.name.startswith(".innereye-")]


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users can reach, which pytest's own temporary folders are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


def mount_small_disk(folder: Path) -> None:
    """Mount a file system of 1 MiB."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk is not allowed here")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount_small_disk(folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def refused(source: Path, target: Path, flag: int) -> None:
    """The answer of NFS to a rename with a flag."""
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@pytest.fixture(params=["swap", "two renames", "old C library"])
def way_of_renaming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of file system: those that can swap two names, and those that know the plain rename only."""
    if request.param == "old C library":
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    if request.param == "two renames":
        monkeypatch.setattr(publishing, "_rename_with_flag", refused)


# --- staging ----------------------------------------------------------------------------------------------------------


def test_a_staged_folder_is_empty_hidden_and_private(tmp_path: Path) -> None:
    target = tmp_path / "new" / "final_model"

    with staged_folder(target) as staged:
        assert list(staged.iterdir()) == []
        assert staged.name == "final_model"
        assert staged.parent.parent == target.parent
        assert staged.parent.name.startswith(".")
        assert staged.parent.stat().st_mode & 0o777 == 0o700
        assert not target.exists()

    assert list(target.parent.iterdir()) == []


def test_nothing_is_left_of_work_that_failed(tmp_path: Path) -> None:
    def work() -> None:
        with staged_folder(tmp_path / "final_model") as staged:
            (staged / "half.txt").write_text("half")
            raise ValueError("something went wrong")

    with pytest.raises(ValueError, match="something went wrong"):
        work()

    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    def killed() -> None:
        with staged_folder(tmp_path / "final_model") as staged:
            (staged / "half.txt").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    child = fork.Process(target=killed)
    child.start()
    child.join()
    assert leftovers(tmp_path)

    publish_generation(tmp_path / "final_model", 1, replace=False)

    assert [path.name for path in tmp_path.iterdir()] == ["final_model"]


def test_work_in_progress_is_never_removed(tmp_path: Path) -> None:
    """Neither that of this process, nor that of another."""
    started, go_on = fork.Event(), fork.Event()

    def other() -> None:
        with staged_folder(tmp_path / "theirs") as staged:
            started.set()
            go_on.wait()
            publish(staged, tmp_path / "theirs", replace=False)

    child = fork.Process(target=other)
    child.start()
    started.wait()
    with staged_folder(tmp_path / "ours") as ours:
        publish_generation(tmp_path / "third", 1, replace=False)
        go_on.set()
        child.join()
        publish(ours, tmp_path / "ours", replace=False)

    assert child.exitcode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "theirs", "third"]


def test_a_lock_without_a_folder_is_a_leftover_too(tmp_path: Path) -> None:
    """Its process was killed before it made the folder."""
    (tmp_path / ".innereye-staging-aaaa.lock").touch()

    with staged_folder(tmp_path / "final_model"):
        assert not (tmp_path / ".innereye-staging-aaaa.lock").exists()


def test_a_link_that_looks_like_a_leftover_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir(mode=0o755)
    (tmp_path / "precious" / "file").touch()
    (tmp_path / ".innereye-staging-cccc").symlink_to("precious")

    with staged_folder(tmp_path / "final_model"):
        pass

    assert (tmp_path / "precious" / "file").exists()
    assert (tmp_path / "precious").stat().st_mode & 0o777 == 0o755


def test_folders_that_may_not_be_written_to_are_removed_too(public_folder: Path) -> None:
    """Copies of installed packages can be like that."""

    def work() -> None:
        with staged_folder(public_folder / "final_model") as staged:
            (staged / "package").mkdir()
            (staged / "package" / "module.py").touch()
            (staged / "package").chmod(0o555)

    in_child(work, user=NOBODY)

    assert list(public_folder.iterdir()) == []


def test_what_cannot_be_removed_is_a_warning_until_it_can(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The result stands; a staging folder that stays is no reason to fail."""
    with staged_folder(tmp_path / "final_model") as staged:
        busy = staged / "busy"
        busy.mkdir()
        mount_small_disk(busy)
    assert "remove it by hand" in caplog.text

    subprocess.run(["umount", str(busy)], check=True)
    publish_generation(tmp_path / "final_model", 1, replace=False)
    assert leftovers(tmp_path) == []


def test_a_place_whose_parent_is_a_file_is_refused_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StorageError, match=r"^cannot write \S+/file: Not a directory; choose .*$"):
        publish_generation(tmp_path / "file" / "final_model", 1, replace=False)


def test_a_place_without_permission_is_refused_with_one_line(public_folder: Path) -> None:
    public_folder.chmod(0o555)

    def work() -> None:
        with pytest.raises(StorageError, match=r"^cannot write \S+: Permission denied.*; choose .*$"):
            publish_generation(public_folder / "final_model", 1, replace=False)

    in_child(work, user=NOBODY)

    assert list(public_folder.iterdir()) == []


def test_missing_parents_are_made(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")

    assert (tmp_path / "a" / "b").is_dir()


# --- publishing -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("way_of_renaming")
def test_a_published_folder_is_complete_and_has_the_usual_permissions(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.mkdir()

    publish_generation(tmp_path / "final_model", 1, replace=False)

    assert generations(tmp_path / "final_model") == {"1"}
    assert (tmp_path / "final_model").stat().st_mode == usual.stat().st_mode
    assert leftovers(tmp_path) == []


def test_a_folder_inside_the_staged_one_can_be_published(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "final_model") as staged:
        (staged / "scratch").mkdir()
        (staged / "result").mkdir()
        publish(staged / "result", tmp_path / "final_model", replace=False)

    assert [path.name for path in tmp_path.iterdir()] == ["final_model"]
    assert list((tmp_path / "final_model").iterdir()) == []


@pytest.mark.usefixtures("way_of_renaming")
@pytest.mark.parametrize("existing", ["full folder", "empty folder", "file", "broken link"])
def test_what_exists_is_never_overwritten(tmp_path: Path, existing: str) -> None:
    target = tmp_path / "final_model"
    if existing == "full folder":
        publish_generation(target, 1, replace=False)
    elif existing == "empty folder":
        target.mkdir()
    elif existing == "file":
        target.write_text("precious")
    else:
        target.symlink_to("nowhere")
    before = target.lstat()

    with pytest.raises(TargetExistsError, match=r"final_model exists already; give --replace .*"):
        publish_generation(target, 2, replace=False)

    assert target.lstat() == before
    assert leftovers(tmp_path) == []


def test_a_folder_that_another_process_publishes_at_the_last_moment_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the plain rename is all there is: it does not rename onto a folder with files in it."""
    target = tmp_path / "final_model"

    publish_generation(target, 1, replace=False)
    monkeypatch.setattr(publishing, "_rename_with_flag", refused)
    monkeypatch.setattr(os.path, "lexists", lambda path: False)  # as it was a moment ago

    with pytest.raises(TargetExistsError):
        publish_generation(target, 2, replace=False)

    assert generations(target) == {"1"}


def test_the_early_check_says_the_same(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "final_model")
    (tmp_path / "final_model").mkdir()

    with pytest.raises(RegistryError, match=r"final_model exists already; give --replace .*"):
        refuse_existing(tmp_path / "final_model")


@pytest.mark.usefixtures("way_of_renaming")
def test_replacing_swaps_the_folder_and_removes_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "final_model"
    for generation in (1, 2, 3):
        publish_generation(target, generation, replace=True)

        assert generations(target) == {str(generation)}

    assert [path.name for path in tmp_path.iterdir()] == ["final_model"]


@pytest.mark.parametrize("existing", ["file", "link"])
def test_what_is_not_a_folder_is_not_replaced(tmp_path: Path, existing: str) -> None:
    """A link may lead to where somebody put the folder on purpose."""
    target = tmp_path / "final_model"
    if existing == "file":
        target.write_text("precious")
    else:
        (tmp_path / "elsewhere").mkdir()
        target.symlink_to("elsewhere")
    before = target.lstat()

    with pytest.raises(RegistryError, match="is not a folder and is not replaced"):
        publish_generation(target, 1, replace=True)

    assert target.lstat() == before


def test_a_failed_replacement_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "final_model"
    publish_generation(target, 1, replace=False)

    with pytest.raises(FileNotFoundError), staged_folder(target) as staged:
        publish(staged / "missing", target, replace=True)

    assert generations(target) == {"1"}
    assert leftovers(tmp_path) == []


def test_where_the_second_of_two_renames_fails_the_first_is_taken_back(tmp_path: Path) -> None:
    target = tmp_path / "final_model"
    publish_generation(target, 1, replace=False)

    with pytest.raises(FileNotFoundError):
        publishing._swap_by_two_renames(tmp_path / "missing", target)

    assert generations(target) == {"1"}
    assert leftovers(tmp_path) == []


def test_a_kill_between_two_renames_is_repaired_by_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On file systems that cannot swap, the old folder has a hidden name for a moment."""
    target = tmp_path / "final_model"
    publish_generation(target, 1, replace=False)

    def killed_between() -> None:
        def killed(source: Path, target: Path) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(publishing, "_rename_with_flag", refused)
        monkeypatch.setattr(publishing, "_rename_to_new_name", killed)
        publish_generation(target, 2, replace=True)

    child = fork.Process(target=killed_between)
    child.start()
    child.join()
    assert not target.exists()

    with staged_folder(target):
        assert generations(target) == {"1"}

    assert [path.name for path in tmp_path.iterdir()] == ["final_model"]


def test_what_somebody_made_after_such_a_kill_stays(tmp_path: Path) -> None:
    target = tmp_path / "final_model"
    publish_generation(target, 2, replace=False)
    left_behind = tmp_path / ".innereye-replaced-0123456789abcdef" / "final_model"
    publish_generation(left_behind, 1, replace=False)

    with staged_folder(target):
        assert generations(target) == {"2"}

    assert leftovers(tmp_path) == []


@pytest.mark.usefixtures("way_of_renaming")
@pytest.mark.parametrize("replace", [False, True])
def test_a_place_that_was_removed_meanwhile_is_an_error(tmp_path: Path, replace: bool) -> None:
    with staged_folder(tmp_path / "final_model") as staged, pytest.raises(FileNotFoundError):
        publish(staged, tmp_path / "removed" / "final_model", replace=replace)

    assert list(tmp_path.iterdir()) == []


def test_many_processes_that_replace_one_folder_all_succeed(tmp_path: Path) -> None:
    target = tmp_path / "final_model"

    def work(process: int) -> None:
        for i in range(10):
            publish_generation(target, 100 * process + i, replace=True)

    children = [fork.Process(target=work, args=(process,)) for process in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()

    assert [child.exitcode for child in children] == [0, 0, 0, 0]
    assert len(generations(target)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["final_model"]


@pytest.mark.usefixtures("way_of_renaming")
def test_of_many_processes_that_publish_one_folder_exactly_one_succeeds(tmp_path: Path) -> None:
    target = tmp_path / "final_model"
    published = fork.Value("i", 0)

    def work(process: int) -> None:
        with contextlib.suppress(TargetExistsError):
            publish_generation(target, process, replace=False)
            with published.get_lock():
                published.value += 1

    children = [fork.Process(target=work, args=(process,)) for process in range(6)]
    for child in children:
        child.start()
    for child in children:
        child.join()

    assert [child.exitcode for child in children] == [0] * 6
    assert published.value == 1
    assert len(generations(target)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["final_model"]


def test_a_reader_never_sees_a_missing_or_mixed_folder_while_it_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "final_model"
    publish_generation(target, 0, replace=False)
    done = threading.Event()
    seen: set[str] = set()
    problems: list[str] = []

    def read() -> None:
        while not done.is_set():
            folder = os.open(target, os.O_RDONLY)  # fails if the folder is missing
            try:
                found = set()
                for i in range(FILES):
                    with os.fdopen(os.open(f"{i}.txt", os.O_RDONLY, dir_fd=folder)) as file:
                        found.add(file.read())
                if len(found) != 1:
                    problems.append(f"mixed: {found}")
                seen.update(found)
            except FileNotFoundError:  # only an old folder, whose name has gone to the new one, may lose its files
                if os.path.samestat(os.fstat(folder), target.stat()):
                    problems.append("the published folder lacks a file")
            finally:
                os.close(folder)

    def read_and_report() -> None:
        try:
            read()
        except OSError as error:
            problems.append(f"missing: {error}")

    readers = [threading.Thread(target=read_and_report) for _ in range(2)]
    for reader in readers:
        reader.start()
    generation = 0
    while generation < 100 or (len(seen) < 10 and generation < 1000):
        generation += 1
        publish_generation(target, generation, replace=True)
    done.set()
    for reader in readers:
        reader.join()

    assert problems == []
    assert len(seen) >= 10


def test_after_a_kill_at_any_moment_the_folder_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    target = tmp_path / "final_model"
    publish_generation(target, 0, replace=False)

    def replace_by_next() -> None:
        publish_generation(target, 1 + int(min(generations(target))), replace=True)

    lines = lines_of(replace_by_next)
    last = 1
    moments = random.Random(1)
    for _ in range(50):
        kill_at_line(moments.randrange(3 * lines), replace_by_next)

        found = generations(target)
        assert len(found) == 1
        assert int(min(found)) >= last
        last = int(min(found))

    assert last > 20  # the kills hit work in progress
    replace_by_next()
    assert [path.name for path in tmp_path.iterdir()] == ["final_model"]


# --- single files -----------------------------------------------------------------------------------------------------


def test_a_file_is_written_or_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    for content in (b"old", b"new"):
        write_file_atomically(path, content)

        assert path.read_bytes() == content

    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_file_has_its_old_content_when_its_replacement_fails(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_file_atomically(path, b"old")

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        with pytest.raises(StorageError, match=r"^cannot write \S+run\.json: File too large; raise the limit .*$"):
            write_file_atomically(path, bytes(1000))

    in_child(work)

    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


# --- failing disks ----------------------------------------------------------------------------------------------------


def test_a_full_disk_in_the_middle_leaves_nothing(small_disk: Path) -> None:
    target = small_disk / "final_model"
    publish_generation(target, 1, replace=False)

    def work() -> None:
        with storage_errors(f"package {target}"), staged_folder(target) as staged:
            for i in range(1000):
                (staged / f"{i}.bin").write_bytes(bytes(10_000))

    with pytest.raises(
        StorageError, match=r"^cannot write package \S+: No space left on device.*; free some space .*$"
    ):
        work()

    assert generations(target) == {"1"}
    assert [path.name for path in small_disk.iterdir()] == ["final_model"]


@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO, errno.ENAMETOOLONG],
)
def test_each_way_in_which_storage_fails_is_one_line_with_a_remedy(number: int) -> None:
    with pytest.raises(StorageError) as caught, storage_errors("the report"):
        raise OSError(number, os.strerror(number), "/data/report")

    message = str(caught.value)
    assert message.startswith(f"cannot write the report: {os.strerror(number)} (/data/report); ")
    assert "\n" not in message
    assert caught.value.exit_code == 7


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), storage_errors("the report"):
        (tmp_path / "missing").read_bytes()
    with pytest.raises(ValueError, match="no error of the disk"), storage_errors("the report"):
        raise ValueError("no error of the disk")


def test_a_name_that_the_file_system_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="File name too long"):
        publish_generation(tmp_path / ("x" * 300), 1, replace=False)


def test_importing_is_cheap() -> None:
    heavy = "filelock", "platformdirs", "pydantic", "ctypes"
    code = (
        "import sys, innereye_core.publishing, innereye_core.digests, innereye_core.manifest;"
        "import innereye_core.builtin.local_registry;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )

    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert run.stdout.strip() == "[]"
