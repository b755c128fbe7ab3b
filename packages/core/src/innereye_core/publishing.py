"""How a folder or file becomes visible only when it is complete, whatever happens to process, disk or power.

A folder is built in a hidden staging folder beside its target, flushed to the disk, and moved into place by one rename.
Each live staging folder holds a lock of the operating system, which ends with its process; what a killed process left
behind is recognised by that, and removed by the next one that works in the same place.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from innereye_core.errors import RegistryError, StorageError

if TYPE_CHECKING:
    from filelock import BaseFileLock

_log = logging.getLogger(__name__)

_STAGING = ".innereye-staging-"
_REPLACED = ".innereye-replaced-"
_LOCK_SUFFIX = ".lock"

_MORE_SPACE = "free some space there, or choose another place"
_PERMITTED = "choose a place that you may use"
_REMEDIES = {
    errno.ENOSPC: _MORE_SPACE,
    errno.EDQUOT: _MORE_SPACE,
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or choose another file system",
    errno.EROFS: _PERMITTED,
    errno.EACCES: _PERMITTED,
    errno.EPERM: _PERMITTED,
    errno.EIO: "check the disk, or choose another",
    errno.ENAMETOOLONG: "choose a place with a shorter path",
    errno.ENOTDIR: "choose a place whose parents are folders",
    errno.ENOLCK: "choose a file system that has locks",
    errno.EXDEV: "choose a place that lies on one file system",
}


class TargetExistsError(RegistryError):
    """What was to be published exists already, and is not to be replaced (exit code 5)."""


@contextlib.contextmanager
def storage_errors(what: str, *, doing: str = "write") -> Iterator[None]:
    """Turn an :class:`OSError` that means "the disk or file system failed" into a :class:`StorageError` of one line.

    Other errors pass, so that a missing file stays what it is.

    Args:
        what: what is being written, for the message: a path, or words such as ``package /runs/1/final_model``.
        doing: the verb of the message.

    Raises:
        StorageError: no space, quota, file size limit, no permission, read-only, defective disk, impossible path.
    """
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        where = str(error.filename2 or error.filename or "")
        place = f" ({where})" if where and where not in what else ""
        raise StorageError(f"cannot {doing} {what}: {error.strerror}{place}; {remedy}") from error


def refuse_existing(target: Path) -> None:
    """Say early what :func:`publish` would say at the end.

    Raises:
        TargetExistsError: there is something at ``target``.
    """
    if os.path.lexists(target):
        raise _exists(target)


def _exists(target: Path) -> TargetExistsError:
    return TargetExistsError(f"{target} exists already; give --replace to replace it, or choose another place")


def make_folder(folder: Path) -> None:
    """Make a folder and its parents where they are missing, so that a power cut does not take them away again.

    Raises:
        OSError: it cannot be made.
    """
    missing = itertools.takewhile(lambda path: not path.exists(), (folder, *folder.parents))
    parents = [path.parent for path in missing]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    for parent in parents:
        _flush_folder(parent)


# --- staging ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Open an empty private folder, on the file system of ``target``, to build its content in.

    It has the target's name and lies in a hidden folder beside the target that only this user can enter. Publish it, or
    a folder inside it, with :func:`publish`; whatever is left of it at the end is removed. Leftovers of killed
    processes beside ``target`` are removed first. Missing parents of ``target`` are made.

    Raises:
        StorageError: the folder cannot be made.
    """
    with _locked_box(target.parent, _STAGING) as box:
        staged = box / target.name
        with storage_errors(str(target)):
            staged.mkdir()
        yield staged


@contextlib.contextmanager
def _locked_box(parent: Path, prefix: str) -> Iterator[Path]:
    """A hidden folder in ``parent`` whose lock is held for as long as it is there."""
    with storage_errors(str(parent)):
        make_folder(parent)
        with contextlib.suppress(OSError):  # of other users, for example; no reason not to work here
            _remove_leftovers(parent)
        box, lock = _new_lock(parent, prefix)
    try:
        with storage_errors(str(parent)):
            box.mkdir(mode=0o700)
        yield box
    finally:
        _remove_tree(box)
        with contextlib.suppress(OSError):
            _lock_of(box).unlink()
        lock.release()


def _new_lock(parent: Path, prefix: str) -> tuple[Path, BaseFileLock]:
    """Name a folder that is still to be made, and take its lock.

    Whoever sees the folder later, and can take its lock, knows that its owner has gone.
    """
    from filelock import FileLock, Timeout

    while True:
        box = parent / f"{prefix}{secrets.token_hex(8)}"
        lock = FileLock(_lock_of(box), thread_local=False)
        # Between the making of the file and its locking, another process may take it for a leftover.
        with contextlib.suppress(Timeout):
            lock.acquire(blocking=False)
            if _lock_of(box).exists():
                return box, lock
            lock.release()


def _lock_of(box: Path) -> Path:
    return box.with_name(box.name + _LOCK_SUFFIX)


def _remove_leftovers(parent: Path) -> None:
    """Remove what killed processes left in ``parent``; what they had moved out of the way goes back."""
    leftovers = {
        path.name.removesuffix(_LOCK_SUFFIX)
        for path in parent.iterdir()
        if path.name.startswith((_STAGING, _REPLACED)) and not path.is_symlink()
    }
    for name in leftovers:
        box = parent / name
        with _lock_if_free(_lock_of(box)) as is_free:
            if is_free and box.is_dir():
                _log.info("removing %s, left behind by a process that was interrupted", box)
                if name.startswith(_REPLACED):
                    _put_back(box)
                _remove_tree(box)


@contextlib.contextmanager
def _lock_if_free(lock_file: Path) -> Iterator[bool]:
    """Hold a lock and remove its file at the end; false where somebody else holds it."""
    from filelock import FileLock

    lock = FileLock(lock_file, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except OSError:  # held by another (filelock's Timeout is one), or owned by another user
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            lock_file.unlink()
        lock.release()


def _put_back(box: Path) -> None:
    """Give the folders in ``box`` their names again, unless something new has them by now."""
    for kept in box.iterdir():
        try:
            _rename_to_new_name(kept, box.parent / kept.name)
        except FileExistsError:
            continue


def _remove_tree(folder: Path) -> None:
    """Remove a folder; where that fails, a warning is enough, since nobody sees the folder."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError:
        _remove_protected_tree(folder)


def _remove_protected_tree(folder: Path) -> None:
    """Remove a folder with subfolders that may not be written to, as copied installations can have."""
    try:
        for parent, _, _ in os.walk(folder):
            Path(parent).chmod(0o700)
        shutil.rmtree(folder)
    except OSError as error:
        _log.warning("could not remove %s: %s; remove it by hand", folder, error.strerror)


# --- publishing -------------------------------------------------------------------------------------------------------


def publish(staged: Path, target: Path, *, replace: bool) -> None:
    """Make a complete folder visible by one rename, after everything in it is on the disk.

    At every moment, and after a crash at any moment, ``target`` is what it was before or the new folder. (Replacing
    takes two renames where the file system cannot swap names; a crash just between them leaves the old folder under a
    hidden name, and the next :func:`staged_folder` beside it puts it back.)

    Args:
        staged: the folder, from :func:`staged_folder`.
        target: the name that it shall have.
        replace: whether a folder that has this name is replaced, and removed.

    Raises:
        TargetExistsError: there is something at ``target``, and ``replace`` is false.
        RegistryError: what is to be replaced is not a folder.
        StorageError: the disk failed; ``target`` is what it was before.
    """
    with storage_errors(str(target)):
        _flush_tree(staged)
        if replace:
            _replace(staged, target)
        else:
            try:
                _rename_to_new_name(staged, target)
            except FileExistsError:
                raise _exists(target) from None
        _flush_folder(target.parent)
    _remove_tree(staged)


def write_file_atomically(path: Path, content: bytes) -> None:
    """Write a file that has its old content or its new content at every moment, and after a crash.

    Raises:
        StorageError: the disk failed; the file is what it was before.
    """
    with storage_errors(str(path)), staged_folder(path) as staged:
        new = staged / path.name
        new.write_bytes(content)
        _flush_file(new)
        new.replace(path)
        _flush_folder(path.parent)


def _replace(staged: Path, target: Path) -> None:
    """Give ``staged`` the name ``target``; the old folder, if there is one, ends up at ``staged`` or is removed."""
    while True:
        try:
            if not os.path.lexists(target):
                _rename_to_new_name(staged, target)
            elif stat.S_ISDIR(target.lstat().st_mode):
                _swap(staged, target)
            else:
                raise RegistryError(
                    f"{target} is not a folder and is not replaced; move it away, or choose another place"
                )
            return
        except FileExistsError:  # another process was faster; the next round replaces its folder
            continue
        except FileNotFoundError:
            if not (staged.is_dir() and target.parent.is_dir()):
                raise


def _swap(staged: Path, target: Path) -> None:
    try:
        _rename_with_flag(staged, target, _EXCHANGE)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _swap_by_two_renames(staged, target)


def _swap_by_two_renames(staged: Path, target: Path) -> None:
    with _locked_box(target.parent, _REPLACED) as box:
        target.rename(box / target.name)
        try:
            _rename_to_new_name(staged, target)
            _flush_folder(target.parent)
        except OSError:
            _put_back(box)
            raise


def _rename_to_new_name(source: Path, target: Path) -> None:
    """Rename a folder, never onto anything that exists.

    Raises:
        FileExistsError: there is something at ``target``.
    """
    try:
        _rename_with_flag(source, target, _NO_REPLACE)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        try:
            source.rename(target)
        except OSError as late:
            # No system renames onto a folder with files in it, so what was published meanwhile is safe.
            if late.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
            raise


# linux/fs.h: RENAME_NOREPLACE, RENAME_EXCHANGE; sys/stdio.h of macOS: RENAME_EXCL, RENAME_SWAP.
_NO_REPLACE = 4 if sys.platform == "darwin" else 1
_EXCHANGE = 2
_AT_FDCWD = -100

_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV)
"""How systems and file systems say that they do not know a flag (EXDEV: overlayfs cannot swap between its layers)."""


def _rename_with_flag(source: Path, target: Path, flag: int) -> None:
    """The rename of the operating system that can refuse to replace, or swap two names.

    Raises:
        OSError: as os.rename; one of ``_UNSUPPORTED`` where the system or the file system has no such rename.
    """
    import ctypes

    names = os.fsencode(source), os.fsencode(target)
    try:
        if sys.platform == "linux":
            rename = ctypes.CDLL(None, use_errno=True).renameat2
            failed = rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(flag))
        elif sys.platform == "darwin":
            failed = ctypes.CDLL(None, use_errno=True).renamex_np(*names, ctypes.c_uint(flag))
        else:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    except AttributeError:  # a C library that is older than the call
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(source), None, str(target))


# --- flushing ---------------------------------------------------------------------------------------------------------


def _flush_tree(folder: Path) -> None:
    """Wait until every file in the folder, and every name of one, is on the disk."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _flush_tree(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                _flush_file(Path(entry.path))
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    """Flush the names in a folder, where it may be read and the file system can."""
    try:
        _flush_file(folder)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EINVAL):
            raise


def _flush_file(path: Path) -> None:
    if os.name == "nt":  # flushes only what is open for writing, and never a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
