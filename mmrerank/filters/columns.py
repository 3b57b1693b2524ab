"""What can be filtered: the columns of every record, and the keys of the metadata with what is in them.

Metadata are what JSON holds. A key of an object within them is a column of its own (``gbif.species``), down
to `MOST_DEEP` keys; a list counts as its values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mmrerank.filters.moments import moment
from mmrerank.filters.tree import Column, written

Type = Literal["text", "date", "number", "boolean"]
RECORD: dict[str, Type] = {
    "id": "text", "path": "text", "taken": "date", "camera": "text", "width": "number", "height": "number",
    "size": "number",
}  # fmt: skip
"""The columns of every record. ``path`` is below the source, ``taken`` and ``camera`` are from EXIF,
``width`` and ``height`` are pixels as the picture is shown, ``size`` is bytes of the file."""
METADATA = "metadata"
"""Begins the name of a key of the metadata that is called as a column of the record is."""
MOST_DEEP = 4
LONGEST_KEY = 200
TEXT, DATE, NUMBER, BOOLEAN, LIST, OTHER, ODD = (1 << n for n in range(7))
FLAGS = (TEXT, DATE, NUMBER, BOOLEAN, LIST, OTHER, ODD)
"""What a value can be. `OTHER` is an object, or a list in a list; `ODD` is what SQLite reads otherwise."""
_TYPES: dict[int, Type] = {TEXT: "text", DATE: "date", NUMBER: "number", BOOLEAN: "boolean"}


@dataclass(frozen=True, kw_only=True)
class Field:
    """A column and what is in it. ``flags`` are those of its values. ``images`` have a value that is not
    null: it is counted for metadata only.
    """

    keys: tuple[str, ...]
    flags: int
    images: int | None = None

    @property
    def name(self) -> str:
        """As a filter names it."""
        named = self.keys[0] == METADATA or (len(self.keys) == 1 and self.keys[0] in RECORD)
        return written((METADATA, *self.keys) if named and self.images is not None else self.keys)

    @property
    def types(self) -> tuple[Type, ...]:
        """The types of its values: more than one where they are mixed, none where only objects are in it."""
        return tuple(t for flag, t in _TYPES.items() if self.flags & flag)

    @property
    def type(self) -> str:
        """The types in words.

        >>> Field(keys=("tags",), flags=TEXT | LIST).type
        'list of text'
        """
        types = [t for t in self.types if t != "date"] if self.flags & TEXT else [*self.types]
        words = " or ".join(types) or "object"
        return f"list of {words}" if self.flags & LIST and types else words


@dataclass(frozen=True, kw_only=True)
class Fields:
    """All columns of an index. ``metadata`` are those of its metadata, by their keys; ``full`` says that
    there are more of them than an index remembers; ``plain`` that SQLite can read the metadata of all images.
    """

    metadata: Mapping[tuple[str, ...], Field] = field(default_factory=dict)
    full: bool = False
    plain: bool = True

    def get(self, column: Column) -> Field | None:
        """The column that is meant, if there is one."""
        name, keys = placed(column)
        if name is not None:
            return RECORD_FIELDS[name]
        return self.metadata.get(keys)

    def __iter__(self) -> Iterator[Field]:
        yield from RECORD_FIELDS.values()
        yield from sorted(self.metadata.values(), key=lambda f: f.name)


RECORD_FIELDS = {
    name: Field(keys=(name,), flags=next(f for f, t in _TYPES.items() if t == type_))
    for name, type_ in RECORD.items()
}


def placed(column: Column) -> tuple[str | None, tuple[str, ...]]:
    """The column of the record that is meant, or None and the keys of the metadata."""
    keys = column.keys
    if len(keys) == 1 and keys[0] in RECORD:
        return keys[0], ()
    return None, keys[1:] if keys[0] == METADATA and len(keys) > 1 else keys


def found(metadata: Any, keys: tuple[str, ...]) -> Any:
    """The value at ``keys``; None where there is none."""
    for key in keys:
        if not isinstance(metadata, dict) or key not in metadata:
            return None
        metadata = metadata[key]
    return metadata


def observed(metadata: Mapping[str, Any]) -> list[tuple[tuple[str, ...], int]]:
    """The keys of every column in ``metadata``, as JSON gives them, that has a value; and its flags."""
    seen: list[tuple[tuple[str, ...], int]] = []
    _observe(metadata, (), seen)
    return seen


def _observe(metadata: Mapping[str, Any], above: tuple[str, ...], seen: list[Any]) -> None:
    for key, value in metadata.items():
        if value is None or not 1 <= len(key) <= LONGEST_KEY or not key.isprintable():
            continue
        keys = (*above, key)
        seen.append((keys, _flags(value)))
        if type(value) is dict and len(keys) < MOST_DEEP:
            _observe(value, keys, seen)


def _flags(value: Any) -> int:
    kind = type(value)  # JSON gives no others; this is asked of each value of each image
    if kind is str:
        odd = 0 if "\0" not in value and _encodes(value) else ODD
        dated = value[:1] in ("1", "2") and moment(value) is not None
        return odd | (DATE if dated else TEXT)
    if kind is int:
        return NUMBER if -(2**63) <= value < 2**63 else NUMBER | ODD
    if kind is float:
        return NUMBER
    if kind is bool:
        return BOOLEAN
    if kind is list:
        every = LIST
        for one in value:
            every |= OTHER if type(one) is list else _flags(one)
        return every
    return 0 if value is None else OTHER


def _encodes(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def is_plain(metadata: str) -> bool:
    """Whether SQLite reads this JSON text as Python does: it knows no NaN, and has its own limit of depth."""
    return (
        metadata.count("[") + metadata.count("{") < 900
        and "NaN" not in metadata
        and "Infinity" not in metadata
    )


def read(metadata: str) -> dict[str, Any]:
    """The metadata in a record's text. Raises `ValueError` for what is no object."""
    made = json.loads(metadata)
    if not isinstance(made, dict):
        raise ValueError("metadata are no object")
    return made
