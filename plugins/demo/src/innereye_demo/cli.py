"""``innereye demo``: the whole life of a model on real data."""

from __future__ import annotations

import click


@click.command()
def demo() -> None:
    """Train, deploy and score a model on a real brain MRI."""
