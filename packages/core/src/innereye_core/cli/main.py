"""Runs the command line and turns every error into one line on stderr and the exit code of its kind."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from innereye_core.cli.verbosity import set_up_logging
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
    set_up_logging(debug=debug, verbose="--verbose" in arguments)
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
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        # click takes the end of any file for Ctrl-D, the end of what the user types.
        actual = error.__cause__ or KeyboardInterrupt() if isinstance(error, click.Abort) else error
        if isinstance(actual, InnerEyeError):
            return _fail(str(actual), actual.exit_code)
        if isinstance(actual, KeyboardInterrupt):
            return _fail("interrupted", INTERRUPTED)
        return _fail(f"unexpected {type(actual).__name__}: {actual}; run again with --debug to see where", 1)
    return result if isinstance(result, int) else 0


def _fail(message: str, exit_code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return exit_code
