"""A filter as a condition of SQLite over the records, with every value a parameter.

What SQLite does not read as Python does (`Fields.plain`, `mmrerank.filters.columns.ODD`, keys with odd
characters) is left to `mmrerank.filters.matching`, which is slower: SQLite then calls it for each record.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from mmrerank.filters.columns import LIST, ODD, OTHER, RECORD_FIELDS, Field, Fields, found, placed, read
from mmrerank.filters.matching import contains, dates, folded, meets
from mmrerank.filters.moments import moment
from mmrerank.filters.tree import And, Compare, In, Leaf, Node, Not, Null, Or, Value

_METADATA = "metadata"
_NEVER = "(1 IS NULL)"


class Condition:
    """``sql`` and its ``parameters``. ``columns`` are the expressions of the record's columns.

    `register` comes before its use: the condition calls functions of Python.
    """

    def __init__(self, node: Node, fields: Fields, columns: Mapping[str, str]) -> None:
        self.parameters: dict[str, Any] = {}
        self._fields, self._columns = fields, columns
        self._left: list[tuple[Leaf, tuple[str, ...]]] = []
        self.sql = self._node(node)

    def register(self, connection: sqlite3.Connection) -> None:
        """Gives ``connection`` the functions."""
        connection.create_function("mmrr_contains", 2, contains, deterministic=True)
        connection.create_function("mmrr_moment", 1, moment, deterministic=True)
        left = tuple(self._left)

        def holds(metadata: str, number: int) -> bool:
            leaf, keys = left[number]
            return meets(leaf, found(read(metadata), keys))

        connection.create_function("mmrr_holds", 2, holds, deterministic=True)

    def _given(self, value: Any) -> str:
        name = f"f{len(self.parameters)}"
        self.parameters[name] = value
        return f":{name}"

    def _node(self, node: Node) -> str:
        match node:
            case And(parts=parts):
                return _joined("AND", [*map(self._node, parts)])
            case Or(parts=parts):
                return _joined("OR", [*map(self._node, parts)])
            case Not(part=part):
                return f"({self._node(part)} IS NOT TRUE)"  # of null, too
        name, keys = placed(node.column)
        if name is not None:
            return self._leaf(node, _Place(self._columns[name], "", RECORD_FIELDS[name]))
        field = self._fields.get(node.column)
        if field is None:
            return _NEVER if not (isinstance(node, Null) and not node.negated) else "(1)"
        if not self._fields.plain or field.flags & ODD or not all(map(_plain, keys)):
            self._left.append((node, keys))
            return f"mmrr_holds({_METADATA}, {self._given(len(self._left) - 1)})"
        path = self._given("$" + "".join(f'."{k}"' for k in keys))
        return self._leaf(node, _Place(f"json_extract({_METADATA}, {path})", path, field))

    def _leaf(self, leaf: Leaf, place: _Place) -> str:
        match leaf:
            case Null(negated=negated):
                return f"({place.value} IS {'NOT ' if negated else ''}NULL)"
            case In(values=values, negated=negated):
                one = self._any("=", values, place)
            case Compare(operator=operator, value=value):
                negated = operator.startswith("!")
                one = self._any({"!=": "=", "!~": "~"}.get(operator, operator), (value,), place)
        return f"({place.value} IS NOT NULL AND ({one} IS NOT TRUE))" if negated else one

    def _any(self, operator: str, values: tuple[Value, ...], place: _Place) -> str:
        """Whether one value of the record stands so to one of ``values``."""
        if not (place.field.flags & LIST):
            return _joined("OR", [self._one(operator, v, place) for v in values])
        element = _Place("one.value", place.path, place.field, element=True)
        inner = _joined("OR", [self._one(operator, v, element) for v in values])
        return (
            f"(json_type({_METADATA}, {place.path}) <> 'object' AND EXISTS "
            f"(SELECT 1 FROM json_each({_METADATA}, {place.path}) AS one WHERE {inner}))"
        )

    def _one(self, operator: str, value: Value, place: _Place) -> str:
        mine, dated = place.value, place.dated
        if operator == "~":
            return place.typed("text", f"mmrr_contains({mine}, {self._given(folded(str(value.content)))})")
        if value.kind == "boolean":
            if not place.path:
                return _NEVER
            return f"({place.type} = {self._given('true' if value.content else 'false')})"
        ways = []
        if value.kind == "number" and "number" in place.field.types:
            ways.append(place.typed("number", f"{mine} {operator} {self._given(value.content)}"))
        if "date" in place.field.types and (span := dates(value, dated=dated)) is not None:
            at = mine if dated else f"mmrr_moment({place.typed_value('text')})"
            low, high = span.low, span.high
            ways.append({
                "<": lambda: f"({at} < {self._given(low)})",
                "<=": lambda: f"({at} < {self._given(high)})",
                ">": lambda: f"({at} >= {self._given(high)})",
                ">=": lambda: f"({at} >= {self._given(low)})",
                "=": lambda: f"({at} >= {self._given(low)} AND {at} < {self._given(high)})",
            }[operator]())  # fmt: skip
        elif value.kind == "text" and {"text", "date"} & {*place.field.types}:
            content: str | bytes = str(value.content)
            if mine == self._columns.get("path"):
                content = str(value.content).encode("utf-8", "surrogateescape")
            ways.append(place.typed("text", f"{mine} {operator} {self._given(content)}"))
        return _joined("OR", ways or [_NEVER])


class _Place:
    """A column in SQL: its value, and what else may be in it."""

    def __init__(self, value: str, path: str, field: Field, *, element: bool = False) -> None:
        self.value, self.path, self.field, self.element = value, path, field, element
        self.dated = not path and field.types == ("date",)

    @property
    def type(self) -> str:
        """Its type, as SQLite names those of JSON."""
        return "one.type" if self.element else f"json_type({_METADATA}, {self.path})"

    def typed(self, kind: str, condition: str) -> str:
        """``condition``, where the value is text or a number as ``kind`` says."""
        if self._only(kind):
            return f"({condition})"
        names = "= 'text'" if kind == "text" else "IN ('integer', 'real')"
        return f"({self.type} {names} AND {condition})"

    def typed_value(self, kind: str) -> str:
        """The value where it is of ``kind``, else null."""
        return self.value if self._only(kind) else f"CASE WHEN {self.type} = 'text' THEN {self.value} END"

    def _only(self, kind: str) -> bool:
        """Whether nothing else is in the column."""
        if not self.path:
            return True
        types = {"text" if t == "date" else t for t in self.field.types}
        return types == {kind} and not self.field.flags & (OTHER | LIST)


def _joined(word: str, parts: list[str]) -> str:
    """``parts`` with ``word`` between, in brackets by halves: SQLite takes no tree that is deep."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return f"({_joined(word, parts[:half])} {word} {_joined(word, parts[half:])})"


def _plain(key: str) -> bool:
    """Whether SQLite finds this key in JSON text: it compares escaped characters as they are written."""
    return key.isascii() and '"' not in key and "\\" not in key
