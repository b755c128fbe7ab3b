"""The ``innereye`` command: parsing, printing, and exit codes around the Python API."""

from innereye_core.cli.main import main

__all__ = ["main"]
