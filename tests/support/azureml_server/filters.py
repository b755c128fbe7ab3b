"""The filter expressions that the SDK sends when it asks for runs: comparisons with ``eq``, ``ne``, ``and``, ``or``."""

from __future__ import annotations

import re
from collections.abc import Callable

from azureml_server.messages import Json, Refusal

Predicate = Callable[[Json], bool]

TOKEN = re.compile(r"""\s*([()]|"[^"]*"|'[^']*'|[^\s()]+)""")


def parse(expression: str | None) -> Predicate:
    """A predicate on a run's JSON; no expression matches every run.

    Fields are those of a run with a capital letter (``RunId``, ``ParentRunId``, ``Status``…), ``Tags/key`` and
    ``Properties/key``. A value may be quoted; ``null`` is a missing one. ``eq null or ne null`` on a tag asks whether
    the tag exists, as the service reads it.

    Raises:
        Refusal: The expression cannot be understood (400).
    """
    if not expression:
        return lambda run: True
    tokens = TOKEN.findall(expression)
    predicate = _either(tokens)
    if tokens:
        raise Refusal(400, "UserError", f"The filter {expression!r} cannot be understood at {tokens[0]!r}")
    return predicate


def _either(tokens: list[str]) -> Predicate:
    terms = [_all(tokens)]
    while tokens[:1] == ["or"]:
        tokens.pop(0)
        terms.append(_all(tokens))
    return lambda run: any(term(run) for term in terms)


def _all(tokens: list[str]) -> Predicate:
    terms = [_term(tokens)]
    while tokens[:1] == ["and"]:
        tokens.pop(0)
        terms.append(_term(tokens))
    return lambda run: all(term(run) for term in terms)


def _term(tokens: list[str]) -> Predicate:
    if tokens[:1] == ["("]:
        tokens.pop(0)
        inner = _either(tokens)
        if tokens[:1] != [")"]:
            raise Refusal(400, "UserError", "The filter lacks a closing bracket")
        tokens.pop(0)
        return inner
    if len(tokens) < 3 or tokens[1] not in ("eq", "ne"):
        raise Refusal(400, "UserError", f"The filter cannot be understood at {' '.join(tokens[:3])!r}")
    field, operator, value = tokens.pop(0), tokens.pop(0), tokens.pop(0).strip("\"'")
    folder, _, key = field.partition("/")

    def compare(run: Json) -> bool:
        name = folder[0].lower() + folder[1:]
        if key:
            # The two comparisons with null that ask whether a tag exists are both only about runs that have it.
            if value == "null":
                return key in run[name]
            found = run[name].get(key)
        else:
            found = run.get(name)
        equal = found is None if value == "null" else str(found) == value
        return equal == (operator == "eq")

    return compare
