"""Whether a filter holds for one record: what it means, in Python. `mmrerank.filters.sql` must agree.

A comparison holds where there is a value of the kind compared with, and it compares so. It does not hold for
a missing value or null, nor for one of another kind; ``!=``, ``!~`` and ``not in`` hold where there is a
value and their opposite does not hold. ``not`` turns what follows round, for missing values too. Of a list,
one value that compares so is enough.
"""

from __future__ import annotations

import operator as operators
import os
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from mmrerank.filters.columns import METADATA, RECORD, found, placed
from mmrerank.filters.moments import Span, moment, span, span_of, year_of
from mmrerank.filters.tree import And, In, Leaf, Node, Not, Null, Or, Value

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "=": operators.eq, "<": operators.lt, "<=": operators.le, ">": operators.gt, ">=": operators.ge,
}  # fmt: skip


def holds(node: Node, facts: Mapping[str, Any]) -> bool:
    """Whether ``node`` holds for ``facts``: the columns of the record by name, and ``metadata``."""
    match node:
        case And(parts=parts):
            return all(holds(p, facts) for p in parts)
        case Or(parts=parts):
            return any(holds(p, facts) for p in parts)
        case Not(part=part):
            return not holds(part, facts)
    name, keys = placed(node.column)
    if name is None:
        return meets(node, found(facts.get(METADATA), keys))
    value = facts.get(name)
    if name == "path" and isinstance(value, str):
        return meets(node, os.fsencode(value), dated=None)
    return meets(node, value, dated=True if RECORD[name] == "date" else None)


def meets(leaf: Leaf, value: Any, *, dated: bool | None = False) -> bool:
    """Whether a comparison holds for the column's ``value``. Text of a ``dated`` column is dates; where it
    is None, no text is one.
    """
    if isinstance(leaf, Null):
        return (value is not None) is leaf.negated
    if value is None:
        return False
    every = value if isinstance(value, list) else [value]
    if isinstance(leaf, In):
        return any(compares("=", v, e, dated=dated) for v in leaf.values for e in every) is not leaf.negated
    turned = leaf.operator.startswith("!")
    operator = {"!=": "=", "!~": "~"}.get(leaf.operator, leaf.operator)
    return any(compares(operator, leaf.value, e, dated=dated) for e in every) is not turned


def compares(operator: str, value: Value, mine: Any, *, dated: bool | None = False) -> bool:
    """Whether ``mine``, one value of a record, stands so to the ``value`` of a filter."""
    if operator == "~":
        return contains(mine, folded(str(value.content)))
    if value.kind == "boolean":
        return isinstance(mine, bool) and mine is value.content
    if value.kind == "number" and isinstance(mine, int | float) and not isinstance(mine, bool):
        return _ORDER[operator](mine, value.content)
    if dated is not None and (wanted := dates(value, dated=dated)) is not None:
        # the clock of a camera is a moment as it stands
        at = mine if dated else moment(mine)
        return isinstance(at, str) and wanted.holds(operator, at)
    if value.kind != "text":
        return False
    if isinstance(mine, bytes):
        return _ORDER[operator](mine, str(value.content).encode("utf-8", "surrogateescape"))
    return isinstance(mine, str) and _ORDER[operator](mine, value.content)


def dates(value: Value, *, dated: bool) -> Span | None:
    """The span that the value of a filter is; None where it is none."""
    if value.kind == "date":
        return span(str(value.content))
    if value.kind == "number":
        return year_of(value.content)
    return span_of(value.content) if dated else None


def folded(text: str) -> str:
    """``text`` as ``~`` sees it: in small letters, and its accents in one form.

    >>> folded("ÉCOLE") == folded("e\u0301cole")
    True
    """
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def contains(text: object, wanted: str) -> bool:
    """Whether ``wanted``, which is `folded`, is in ``text``; of bytes, in what they say in UTF-8."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return isinstance(text, str) and wanted in folded(text)
