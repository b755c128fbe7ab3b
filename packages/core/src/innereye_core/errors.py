"""Every error that core raises on purpose, each with the exit code that the command line returns for it.

A message is one line: what is wrong, which value, what to do. Rooms that need finer classes derive from these, so that
the exit code is decided here once.
"""

from __future__ import annotations

from typing import ClassVar


class InnerEyeError(Exception):
    """Base of all deliberate errors.

    Attributes:
        exit_code: what the ``innereye`` command exits with when this error reaches it.
    """

    exit_code: ClassVar[int] = 1


class UsageError(InnerEyeError):
    """The command or call contradicts itself or names something that does not exist (exit code 2)."""

    exit_code = 2


class InputError(InnerEyeError):
    """A file given by the user cannot be used: run, config, image, dataset, environment, checkpoint (exit code 3)."""

    exit_code = 3


class IntegrityError(InnerEyeError):
    """Content is not what it is said to be: a wrong digest, a missing or unlisted file, NaN weights (exit code 4)."""

    exit_code = 4


class RegistryError(InnerEyeError):
    """A registry or an existing package refuses: not found, conflict, unreachable (exit code 5)."""

    exit_code = 5


class MissingPluginError(InnerEyeError):
    """A plugin or package that the request needs is missing or unusable (exit code 6)."""

    exit_code = 6


class StorageError(InnerEyeError):
    """The disk or file system failed: full, not writable (exit code 7)."""

    exit_code = 7
