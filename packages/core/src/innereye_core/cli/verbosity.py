"""How much the command line says: ``--verbose``, ``--debug``, and the logging that follows them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_OURS = ("core", "imaging", "segmentation", "azureml", "onnx", "openvino", "dask", "demo")


def verbosity_options(function: F) -> F:
    """--verbose and --debug, which the main function looks at before anything else."""
    debug = click.option("--debug", is_flag=True, expose_value=False, help="Say everything, with tracebacks.")
    return click.option("--verbose", is_flag=True, expose_value=False, help="Say what is done.")(debug(function))


def set_up_logging(debug: bool, verbose: bool) -> None:
    """Send log records to stderr, one line each, from the level that was asked for."""
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    logging.captureWarnings(True)
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in _OURS:
        logging.getLogger(f"innereye_{name}").setLevel(level)
    # Warnings of libraries are for developers; a person who scores a patient can do nothing about them.
    logging.getLogger("py.warnings").setLevel(logging.WARNING if debug else logging.ERROR)


class _Lines(logging.Formatter):
    """One line per record: ``warning: what``."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {' '.join(record.getMessage().split())}"
