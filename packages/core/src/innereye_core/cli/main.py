"""Runs the command line and turns every error into one line on stderr and the exit code of its kind."""

from __future__ import annotations

import io
import logging
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from innereye_core.errors import InnerEyeError

INTERRUPTED = 130
"""What shells expect of a process that Ctrl-C ended."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``innereye`` with the arguments of the process, and exit."""
    from innereye_core.cli.group import innereye

    sys.exit(run(innereye, sys.argv[1:] if arguments is None else arguments, "innereye"))


def run(command: click.Command, arguments: Sequence[str], program: str) -> int:
    """Run a click command and return its exit code; errors are printed."""
    debug = "--debug" in arguments
    _set_up_logging(debug=debug, verbose="--verbose" in arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks "→" is no reason to fail after the work
    try:
        result = command.main(args=list(arguments), prog_name=program, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        hint = f" (see '{error.ctx.command_path} --help')" if error.ctx is not None else ""
        return _fail(error.format_message() + hint, 2)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except Exception as error:
        if debug:
            traceback.print_exc()
        # click takes the end of any file for Ctrl-D, the end of what the user types.
        actual = error.__cause__ if isinstance(error, click.Abort) else error
        if isinstance(actual, InnerEyeError):
            return _fail(str(actual), actual.exit_code)
        if isinstance(actual, KeyboardInterrupt):
            return _fail("interrupted", INTERRUPTED)
        return _fail(f"unexpected {type(actual).__name__}: {actual}; run again with --debug to see where", 1)
    return result if isinstance(result, int) else 0


def _fail(message: str, exit_code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return exit_code


def _set_up_logging(debug: bool, verbose: bool) -> None:
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    logging.captureWarnings(True)
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in ("innereye_core", "innereye_imaging", "innereye_segmentation", "innereye_demo"):
        logging.getLogger(name).setLevel(level)
    # Warnings of libraries are for developers; a person who scores a patient can do nothing about them.
    logging.getLogger("py.warnings").setLevel(logging.WARNING if debug else logging.ERROR)


class _Lines(logging.Formatter):
    """One line per record: ``warning: what``."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {' '.join(record.getMessage().split())}"
