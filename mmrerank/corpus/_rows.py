"""A table as it is read: its columns, and its rows one after the other. Knows nothing of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column by its name; ``kind`` says for people what it holds, such as ``int64``, if known."""

    name: str
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.name!r} ({self.kind})" if self.kind else repr(self.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row: its ``number`` (from 0), its place in words, and its values; ``error`` where it is damaged."""

    number: int
    where: str
    values: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


class Table(Protocol):
    """A file with rows. Opening it reads its first row or its schema, and no more."""

    path: Path

    def columns(self) -> list[Column]:
        """The columns, in the file's order. Raises `InputError` where there is none."""
        ...

    def count(self) -> int | None:
        """How many rows there are, where the file says so."""
        ...

    def rows(self) -> Iterator[Row]:
        """Every row in order, those that are damaged too. Raises `InputError` if it is unreadable."""
        ...
