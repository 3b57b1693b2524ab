"""The parts of a filter, as values; written out, they read as they were read.

``at`` is where a part begins in the text that it came from, in characters from 0; it makes no difference
between two parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "~", "!~"]
Kind = Literal["text", "number", "boolean", "date"]
KEYWORDS = ("and", "or", "not", "in", "is", "null", "has", "true", "false")
_BARE = re.compile(r"[^\W\d][\w:-]*")


@dataclass(frozen=True, kw_only=True)
class Column:
    """What is compared: a column of the record, or a key of its metadata; the keys on the way to it."""

    keys: tuple[str, ...]
    at: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return written(self.keys)


@dataclass(frozen=True, kw_only=True)
class Value:
    """What it is compared with. ``content`` of a date is its text."""

    kind: Kind
    content: str | int | float | bool
    at: int = field(default=0, compare=False)

    def __str__(self) -> str:
        if self.kind == "text":
            return quoted(str(self.content))
        return str(self.content) if self.kind == "date" else json.dumps(self.content)


@dataclass(frozen=True, kw_only=True)
class Compare:
    """``column operator value``."""

    column: Column
    operator: Operator
    value: Value
    at: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"{self.column} {self.operator} {self.value}"


@dataclass(frozen=True, kw_only=True)
class In:
    """Equal to one of ``values``; ``negated``: there is a value, and it is none of them."""

    column: Column
    values: tuple[Value, ...]
    negated: bool = False

    def __str__(self) -> str:
        return f"{self.column} {'not in' if self.negated else 'in'} ({', '.join(map(str, self.values))})"


@dataclass(frozen=True, kw_only=True)
class Null:
    """Whether the record has no value; ``negated``: whether it has one."""

    column: Column
    negated: bool = False

    def __str__(self) -> str:
        return f"{self.column} is {'not null' if self.negated else 'null'}"


@dataclass(frozen=True, kw_only=True)
class Not:
    """Where ``part`` does not hold."""

    part: Node

    def __str__(self) -> str:
        inner = f"({self.part})" if isinstance(self.part, And | Or) else str(self.part)
        return f"not {inner}"


@dataclass(frozen=True, kw_only=True)
class And:
    """Where each of ``parts`` holds."""

    parts: tuple[Node, ...]

    def __str__(self) -> str:
        return " and ".join(f"({p})" if isinstance(p, And | Or) else str(p) for p in self.parts)


@dataclass(frozen=True, kw_only=True)
class Or:
    """Where one of ``parts`` holds."""

    parts: tuple[Node, ...]

    def __str__(self) -> str:
        return " or ".join(f"({p})" if isinstance(p, And | Or) else str(p) for p in self.parts)


Leaf = Compare | In | Null
Node = Leaf | Not | And | Or


def leaves(node: Node) -> Iterator[Leaf]:
    """Every comparison, from left to right."""
    match node:
        case Not(part=part):
            yield from leaves(part)
        case And(parts=parts) | Or(parts=parts):
            for one in parts:
                yield from leaves(one)
        case _:
            yield node


def written(keys: tuple[str, ...]) -> str:
    """The name of a column as a filter has it.

    >>> written(("gbif", "species name"))
    'gbif.`species name`'
    """
    return ".".join(_written(k) for k in keys)


def _written(key: str) -> str:
    if _BARE.fullmatch(key) and key.lower() not in KEYWORDS:
        return key
    return "`" + key.replace("`", "``") + "`"


def quoted(text: str) -> str:
    """Text as a filter has it.

    >>> quoted('12" vinyl')
    '"12"" vinyl"'
    """
    return '"' + text.replace('"', '""') + '"'
