"""The command: prepares the inputs, measures, prints the table."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from benchmarks.inputs import Inputs
from benchmarks.processes import run, use_threads
from benchmarks.rows import ROWS, Bench
from benchmarks.sizes import FULL, QUICK
from benchmarks.table import as_text


@click.command()
@click.option("--quick", is_flag=True, help="Small volumes, to see that it works: no figures to quote.")
@click.option("--rounds", default=3, show_default=True, help="How often every contender runs; medians are printed.")
@click.option("--threads", default=2, show_default=True, help="Threads, and processors, for every contender.")
@click.option("--row", "rows", type=click.Choice(list(ROWS)), multiple=True, help="Only this; may be repeated.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep volumes and packages here for the next time.")
@click.option("--json", "document", type=click.Path(path_type=Path), help="Also write every single run to this file.")
def main(
    quick: bool, rounds: int, threads: int, rows: tuple[str, ...], folder: Path | None, document: Path | None
) -> None:
    """Compare our runtimes with MONAI, nnU-Net and InnerEye's method, and print one table."""
    sizes = QUICK if quick else FULL
    use_threads(threads)
    with _folder(folder) as place:
        inputs = Inputs(place / sizes.name)
        _say(f"Preparing volumes and packages in {inputs.folder}")
        inputs.folder.mkdir(parents=True, exist_ok=True)
        run([sys.executable, "-m", "benchmarks.prepare", str(inputs.folder), sizes.name])
        bench = Bench(sizes, inputs, rounds, with_goals=sizes is FULL, say=_say)
        try:
            for name in rows or ROWS:
                ROWS[name](bench)
        finally:  # who interrupts it still gets what there is
            click.echo(as_text(bench.lines))
            if document is not None:
                found = {"machine": _machine(threads), "sizes": dataclasses.asdict(sizes), "measured": bench.measured}
                document.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="innereye-benchmark-") as temporary:
        yield Path(temporary)


def _machine(threads: int) -> dict[str, object]:
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "load": os.getloadavg(),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _say(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    main()
