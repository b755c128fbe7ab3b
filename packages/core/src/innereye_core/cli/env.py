"""``innereye env``: merge Conda environment files."""

from __future__ import annotations

from pathlib import Path

import click

from innereye_core.cli.verbosity import verbosity_options


@click.group(epilog="Example: innereye env merge base.yml mine.yml --output environment.yml")
@verbosity_options
def env() -> None:
    """Merge Conda environment files."""


@env.command(epilog="Example: innereye env merge base.yml mine.yml --output environment.yml")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="Where to write the merged environment.",
)
@click.option("--name", metavar="NAME", help="Name of the merged environment (default: the last in the files).")
@click.option("--merge-strategy", metavar="NAME", default="conda-merge", show_default=True, help="Environment merger.")
@verbosity_options
def merge(files: tuple[Path, ...], output: Path, name: str | None, merge_strategy: str) -> None:
    """Merge FILE... in their order; contradictions are refused with files and lines."""
    from innereye_core.errors import UsageError
    from innereye_core.host import installed_host
    from innereye_core.model import EnvironmentFile
    from innereye_core.packaging.environment_files import COMMAND_LINE
    from innereye_core.publishing import write_file_atomically

    if any(output.resolve() == file.resolve() for file in files):
        raise UsageError(f"--output {output} is also one of the files to merge, which would be lost; name another")
    merger = installed_host().environment_merger(merge_strategy)
    merged = merger.merge([EnvironmentFile(file, COMMAND_LINE) for file in files], name=name)
    for warning in merged.warnings:
        click.echo(f"warning: {warning}", err=True)
    write_file_atomically(output, merged.text.encode())
    click.echo(str(output))
