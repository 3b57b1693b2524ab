"""What is known about one image, and how it becomes a row of the database and is read back, checked."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmrerank.index.kept import KEPT, is_kept


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known about one image.

    ``path`` is below the source where possible, else absolute; ``offset`` and ``length`` (bytes) are a span
    of it; what begins with `mmrerank.index.kept.KEPT` is a copy in the index. ``size`` is the encoded
    image's, in bytes. ``row`` is its vector, None when ``error`` says why. ``ctime_ns`` tells a change
    that left size and time. ``away`` says why the last run could not look at an image whose vector stays.
    """

    id: str
    path: bytes | None = None
    offset: int | None = None
    length: int | None = None
    sha256: str | None = None
    size: int | None = None
    mtime_ns: int | None = None
    width: int | None = None
    height: int | None = None
    taken: str | None = None
    camera: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    row: int | None = None
    error: str | None = None
    ctime_ns: int | None = None
    away: str | None = None


# bytes as an object: no text, number or null is one
_ENCODER = json.JSONEncoder(default=lambda data: {"hex": data.hex()})
COLUMNS = tuple(Record.__dataclass_fields__)
"""The columns of a record, in the order of `values`."""
METADATA = COLUMNS.index("metadata")
FILTERED = ("id", "path", "taken", "camera", "width", "height", "size", "metadata")
"""What `mmrerank.filters.matching` asks about."""


def values(record: Record) -> list[Any]:
    """A record as its columns hold it."""
    fields = vars(record)
    return [json.dumps(record.metadata, default=str) if c == "metadata" else fields[c] for c in COLUMNS]


def facts(record: Record) -> dict[str, Any]:
    """What a filter is asked about; a copy in the index has no path."""
    told = {name: vars(record)[name] for name in FILTERED}
    path = record.path
    return {**told, "path": None if path is None or is_kept(path) else os.fsdecode(path)}


def checksum(fields: Sequence[Any]) -> int:
    """64 bits over values as SQLite holds them, signed as its integers are.

    >>> checksum([1, "a"]) == checksum([1, "a"]) != checksum([1, b"a"])
    True
    """
    text = _ENCODER.encode(fields)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)


def wrapped(total: int) -> int:
    """A sum of checksums in the 64 bits of an integer of SQLite."""
    return (total + 2**63) % 2**64 - 2**63


def parse(fields: Sequence[Any]) -> Record:
    """The record that `values` made these of. Raises `ValueError` for what cannot be one."""
    named = dict(zip(COLUMNS, fields, strict=True))
    for column, value in named.items():
        if value is None and column not in ("id", "metadata"):
            continue
        if not _CHECKS[column](value):
            raise ValueError(f"{column} is {repr(value)[:60]}")
    try:
        metadata = json.loads(named["metadata"])
    except RecursionError as error:
        raise ValueError("metadata are nested too deeply") from error
    if not isinstance(metadata, dict):
        raise ValueError(f"metadata are {type(metadata).__name__}, not an object")
    return Record(**{**named, "metadata": metadata})


def _text(value: object) -> bool:
    return isinstance(value, str)


def _whole(value: object) -> bool:
    return isinstance(value, int)


def _count(value: object) -> bool:
    return isinstance(value, int) and value >= 0


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "id": lambda v: isinstance(v, str) and v != "" and "\0" not in v,
    "path": lambda v: isinstance(v, bytes) and b"\0" not in v.removeprefix(KEPT),
    "sha256": lambda v: isinstance(v, str) and re.fullmatch("[0-9a-f]{64}", v) is not None,
    "mtime_ns": _whole,
    "ctime_ns": _whole,
    **dict.fromkeys(("offset", "length", "size", "width", "height", "row"), _count),
    **dict.fromkeys(("taken", "camera", "metadata", "error", "away"), _text),
}
