"""Merges Conda environment files into one: reads them, refuses contradictions, unites with conda-merge's functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import and_
from pathlib import Path, PurePath

from conda_merge import merge_dependencies, merge_names, merge_pips, merge_variables
from packaging.utils import canonicalize_name

from innereye_core.environments.channels import merge_channels
from innereye_core.environments.conda_specs import CondaSpec, builds_agree, channels_agree, parse_spec
from innereye_core.environments.conda_versions import ANY_VERSION, VersionSet, matching
from innereye_core.environments.conflicts import refuse_contradiction
from innereye_core.environments.located import Entry, one_line, shown
from innereye_core.environments.pip_lines import merge_options, pip_lines
from innereye_core.environments.pip_requirements import (
    PipRequirement,
    merge_requirements,
    parse_requirement,
    unpinned_address,
)
from innereye_core.environments.reading import Environment, name_problem, read_environment
from innereye_core.environments.writing import environment_text
from innereye_core.errors import InputError
from innereye_core.model import EnvironmentFile, MergedEnvironment

_PIP_NAMES = {"pytorch": "torch", "pytorch-cpu": "torch", "pytorch-gpu": "torch"}
"""pip's names of packages that conda calls otherwise, as far as models for this project need them."""


def merge_environments(
    files: Sequence[EnvironmentFile], name: str | None, extra_code: Path | None
) -> MergedEnvironment:
    """Merge environment files in the order given.

    Names and variables: the last one wins. Channels keep each file's order. Dependencies are united and sorted, the
    options of pip come first, in their order.

    Args:
        files: at least one.
        name: name of the merged environment; None: the last name in the files.
        extra_code: folder of code that travels in the package, which pip's relative paths may point into.

    Raises:
        InputError: a file is malformed, or two contradict each other; files and lines are named.
    """
    if not files:
        raise InputError("no environment file was given; name at least one")
    problem = name_problem(name) if name else None
    if problem:
        raise InputError(problem)
    environments = [read_environment(file) for file in files]
    pip_sections = [pip_lines(environment, extra_code) for environment in environments]
    channels, channel_warnings = merge_channels([environment.channels for environment in environments])
    specs, conda, conda_warnings = _merge_conda([entry for environment in environments for entry in environment.conda])
    options, option_warnings = merge_options([section.options for section in pip_sections])
    requirements, pip_warnings = _merge_pip([entry for section in pip_sections for entry in section.requirements])
    variables, variable_warnings = _merge_variables(environments)
    packaged = [entry for section in pip_sections for entry in section.packaged]
    installed = [entry.text for entry in (*packaged, *(requirement.entry for requirement in requirements))]
    text = environment_text(
        [_public_name(file) for file in files],
        name or merge_names(environment.name for environment in environments),
        channels,
        conda,
        [*options, *merge_pips([installed])["pip"]],
        variables,
    )
    warnings = [
        *(warning for environment in environments for warning in environment.warnings),
        *(warning for section in pip_sections for warning in section.warnings),
        *channel_warnings,
        *conda_warnings,
        *option_warnings,
        *pip_warnings,
        *_disagreements(specs, requirements),
        *variable_warnings,
    ]
    return MergedEnvironment(text, tuple(dict.fromkeys(warnings)))


def _merge_conda(entries: Sequence[Entry]) -> tuple[list[CondaSpec], list[str], list[str]]:
    """The specs that are understood, the merged dependencies, and warnings."""
    warnings: list[str] = []
    others: list[str] = []
    by_name: dict[str, list[CondaSpec]] = {}
    for entry in entries:
        spec = parse_spec(entry)
        if spec is None:
            others.append(entry.text)
            warnings.append(f"{entry.place}: {entry} is not understood; it is kept, and not compared with other files")
        else:
            by_name.setdefault(spec.name, []).append(spec)
    kept: list[CondaSpec] = []
    for specs in by_name.values():
        refuse_contradiction(specs, _versions_possible, "no version satisfies them together")
        refuse_contradiction(specs, _builds_possible, "they name different builds")
        refuse_contradiction(specs, _channels_possible, "they name different channels")
        distinct: dict[object, CondaSpec] = {}
        for spec in specs:
            distinct.setdefault((spec.channel, spec.without_channel), spec)
        with_channel = {spec.without_channel for spec in distinct.values() if spec.channel is not None}
        kept += [spec for spec in distinct.values() if spec.channel or spec.without_channel not in with_channel]
    merged: list[str] = merge_dependencies([[spec.text for spec in kept], others])
    return kept, merged, warnings


def _versions_possible(specs: Sequence[CondaSpec]) -> bool:
    return bool(reduce(and_, (spec.versions for spec in specs)))


def _builds_possible(specs: Sequence[CondaSpec]) -> bool:
    return all(builds_agree(first, second) for first in specs for second in specs)


def _channels_possible(specs: Sequence[CondaSpec]) -> bool:
    return all(channels_agree(first, second) for first in specs for second in specs)


def _merge_pip(entries: Sequence[Entry]) -> tuple[list[PipRequirement], list[str]]:
    requirements, warnings = merge_requirements([parse_requirement(entry) for entry in entries])
    warnings += [
        f"{requirement.entry.place}: {requirement} is not pinned to a commit, so its content may change; write @ and"
        " the full commit after the address"
        for requirement in requirements
        if unpinned_address(requirement)
    ]
    hashed = [requirement for requirement in requirements if "--hash" in requirement.entry.text]
    if hashed and len(hashed) < len(requirements):
        first = hashed[0]
        warnings.append(f"{first.entry.place}: {first.name} has a --hash, and pip then wants one for every requirement")
    return requirements, warnings


def _disagreements(specs: Sequence[CondaSpec], requirements: Sequence[PipRequirement]) -> Iterator[str]:
    """Packages that the conda and the pip section want in versions that exclude each other."""
    for requirement in requirements:
        versions = _as_conda_versions(requirement)
        for spec in specs:
            name = _PIP_NAMES.get(spec.name, canonicalize_name(spec.name))
            if name == requirement.name and not spec.versions & versions:
                yield (
                    f"{requirement.entry.place}: pip's {requirement} contradicts conda's {spec} ({spec.entry.place});"
                    " pip comes last and replaces what conda installed"
                )


def _as_conda_versions(requirement: PipRequirement) -> VersionSet:
    """The versions that a requirement allows wherever it is installed, in conda's order; any if that is not known."""
    if requirement.marker:
        return ANY_VERSION
    try:
        conditions = [matching(specifier.operator, specifier.version) for specifier in requirement.specifiers]
    except ValueError:
        return ANY_VERSION
    return reduce(and_, conditions, ANY_VERSION)


def _merge_variables(environments: Sequence[Environment]) -> tuple[Mapping[str, str], list[str]]:
    warnings: list[str] = []
    current: dict[str, Entry] = {}
    for environment in environments:
        for variable, entry in environment.variables.items():
            before = current.get(variable)
            if before is not None and before.text != entry.text:
                warnings.append(
                    f"{entry.place}: the variable {shown(variable)} replaces its other value ({before.place})"
                )
        current = merge_variables([current, environment.variables])
    return {variable: entry.text for variable, entry in current.items()}, warnings


def _public_name(file: EnvironmentFile) -> str:
    """How the merged file names one that it was made from: without a path of this machine."""
    name = one_line(file.label or file.path.name)
    return PurePath(name).name if PurePath(name).is_absolute() else name
