"""Merges the channels of several environment files, in an order that respects each file's own priorities."""

from __future__ import annotations

import re
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from conda_merge import merge_channels as merge_priorities

from innereye_core.environments.located import Entry
from innereye_core.errors import InputError

_LOCAL = re.compile(r"(?i)[./~\\]|file:|[a-z]:[\\/]")


def merge_channels(files: Sequence[Sequence[Entry]]) -> tuple[list[str], list[str]]:
    """Merge lists of channels in descending priority.

    A channel comes as soon as its predecessors in every file allow, and otherwise in the order of first appearance: a
    later file's channels do not overtake those of an earlier one without need.

    Returns:
        The channels, and warnings.

    Raises:
        InputError: the files want opposite orders.
    """
    warnings: list[str] = []
    lists = [_without_repetitions(entries, warnings) for entries in files]
    _refuse_opposite_orders(lists)
    predecessors: dict[str, list[str]] = {}
    for entries in lists:
        for i, entry in enumerate(entries):
            predecessors.setdefault(entry.text, []).extend(above.text for above in entries[:i])
    order: list[str] = []
    while len(order) < len(predecessors):
        order.append(next(c for c, above in predecessors.items() if c not in order and set(above) <= set(order)))
    known = {entry.text: entry for entries in lists for entry in reversed(entries)}
    warnings += [
        f"{entry.place}: the channel {entry} is a folder of this machine; the environment cannot be made elsewhere"
        for entry in known.values()
        if _LOCAL.match(entry.text)
    ]
    if {"defaults", "nodefaults"} <= known.keys():
        wanted, unwanted = known["defaults"], known["nodefaults"]
        warnings.append(f"{wanted.place}: the channel defaults is used although {unwanted.place} says nodefaults")
    merged: list[str] = merge_priorities([*([entry.text for entry in entries] for entries in lists), order])
    return merged, warnings


def _without_repetitions(entries: Sequence[Entry], warnings: list[str]) -> list[Entry]:
    first: dict[str, Entry] = {}
    for entry in entries:
        if entry.text in first:
            place = first[entry.text].place
            warnings.append(f"{entry.place}: the channel {entry} is there twice; its place in line {place.line} counts")
        else:
            first[entry.text] = entry
    return list(first.values())


def _refuse_opposite_orders(lists: Sequence[Sequence[Entry]]) -> None:
    above: dict[tuple[str, str], tuple[Entry, Entry]] = {}
    for entries in lists:
        for i, lower in enumerate(entries):
            for higher in entries[:i]:
                opposite = above.get((lower.text, higher.text))
                if opposite is not None:
                    first, second = opposite
                    raise InputError(
                        f"{first.place}: channel {first} stands above {second}, but {higher.place} has {higher} above"
                        f" {lower}; use the same order in both files"
                    )
                above.setdefault((higher.text, lower.text), (higher, lower))
    graph: dict[str, set[str]] = {}
    for higher_name, lower_name in above:
        graph.setdefault(lower_name, set()).add(higher_name)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        pairs = [above[pair] for pair in pairwise(cycle)]
        orders = ", ".join(f"{higher} above {lower} ({higher.place})" for higher, lower in pairs)
        raise InputError(f"{pairs[0][0].place}: no order of channels has {orders}; change one of the files") from None
