"""Looks before a search whether a filter makes sense: each column is there, and of the type compared with."""

from __future__ import annotations

import difflib

from mmrerank.errors import UsageError, one_line
from mmrerank.filters.columns import DATE, RECORD_FIELDS, TEXT, Field, Fields, Type
from mmrerank.filters.fault import fault
from mmrerank.filters.moments import FORMS, span_of, year_of
from mmrerank.filters.tree import Column, Compare, In, Leaf, Node, Value, leaves, quoted

_LISTED = 30


def check(text: str, node: Node, fields: Fields) -> None:
    """Raises `UsageError`, with the place in ``text``, for a column that there is not or of another type."""
    for leaf in leaves(node):
        field = fields.get(leaf.column)
        if field is None:
            raise _unknown(text, leaf.column, fields)
        for value in _values(leaf):
            _check(text, leaf, value, field)


def _values(leaf: Leaf) -> tuple[Value, ...]:
    match leaf:
        case Compare(value=value):
            return (value,)
        case In(values=values):
            return values
    return ()


def _unknown(text: str, column: Column, fields: Fields) -> UsageError:
    names = [one_line(f.name, 100) for f in fields]
    hint = []
    folded = {n.casefold(): n for n in reversed(names)}
    near = folded.get(str(column).casefold()) or folded.get(f"`{'.'.join(column.keys)}`".casefold())
    close = [near] if near else difflib.get_close_matches(str(column), names, n=3, cutoff=0.6)
    if close:
        hint.append(f"Did you mean {' or '.join(close)}?")
    shown = ", ".join(f"{n} ({f.type})" for n, f in [*zip(names, fields, strict=True)][:_LISTED])
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    hint.append(f"There are {shown}{more}.")
    if fields.full:
        hint.append(
            f"The metadata have more keys than an index remembers; those that came after the first "
            f"{len(fields.metadata):,} cannot be filtered."
        )
    return fault(text, column.at, f"there is no column {one_line(str(column), 100)}", " ".join(hint))


def _check(text: str, leaf: Leaf, value: Value, field: Field) -> None:
    """Raises `UsageError` where ``value`` can be compared with nothing in the column."""
    operator = leaf.operator if isinstance(leaf, Compare) else "="
    name = str(leaf.column)
    is_a = f"{name} is {_kind(field)}"
    if not field.types:
        raise fault(text, value.at, f"{is_a}; only 'is null' and 'is not null' can ask about it")
    if operator in ("~", "!~"):
        if value.kind != "text":
            hint = f"Write {quoted(str(value))}."
            raise fault(text, value.at, f"{operator} looks for text, not for a {value.kind}", hint)
        if not field.flags & (TEXT | DATE):
            raise fault(text, value.at, f"{operator} looks into text, and {is_a}")
        return
    if value.kind == "boolean" and operator not in ("=", "!="):
        raise fault(text, value.at, f"{operator} compares no booleans; = and != do")
    if not _fits(value, field):
        raise fault(text, value.at, f"{is_a}, and this is a {value.kind}", _advice(value, field))


def _fits(value: Value, field: Field) -> bool:
    types = field.types
    match value.kind:
        case "text":
            if field is RECORD_FIELDS["taken"]:
                return span_of(value.content) is not None
            return "text" in types or "date" in types
        case "number":
            return "number" in types or ("date" in types and year_of(value.content) is not None)
    return value.kind in types


def _kind(field: Field) -> str:
    words = field.type
    return f"an {words}" if words.startswith("object") else words if words == "text" else f"a {words}"


def _advice(value: Value, field: Field) -> str:
    ways: dict[Type, str] = {
        "text": f"Text is written in quotes: {quoted(str(value.content))}.",
        "date": f"A date is written {FORMS}.",
        "number": "A number is written without quotes: 12 or 2.5.",
        "boolean": "A boolean is written true or false.",
    }
    return " ".join(ways[t] for t in field.types if t != value.kind)
