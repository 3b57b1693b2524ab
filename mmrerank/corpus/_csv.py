"""Reads CSV and TSV, row by row. A row that is damaged is one row, and the next line begins another.

The types of a column are those that all of its cells have: a column with ``007`` in it is text.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from mmrerank.corpus._names import decodable
from mmrerank.corpus._rows import Column, Row
from mmrerank.errors import InputError
from mmrerank.paths import reason

_DELIMITERS = ",;\t|"
_MOST_COLUMNS = 10_000
_NOT_UTF8 = "is not UTF-8; save the table again as UTF-8"
_TRUE = {"true": True, "false": False}
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d{1,3})?")


def _boolean(text: str) -> bool | None:
    return _TRUE.get(text.lower())


def _whole(text: str) -> int | None:
    return int(text) if _WHOLE.fullmatch(text) else None


def _decimal(text: str) -> float | None:
    found = float(text) if len(text) < 40 and _NUMBER.fullmatch(text) else None
    return found if found is None or abs(found) < float("inf") else None


_TYPES: tuple[Callable[[str], Any], ...] = (_boolean, _whole, _decimal)
"""What a column may be if it is no text, the narrowest first."""


class Csv:
    """The file ``path``, whose first line names the columns. Raises `InputError` where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as file:
            head = file.readline(csv.field_size_limit())
            self._delimiter = _delimiter(head, path)
            file.seek(0)
            try:
                self._names: list[str] = next(self._reader(file), [])
            except csv.Error as error:
                raise InputError(f"{path}, line 1 is no line of a table: {error}") from error
        self._names = [n.strip() for n in self._names]
        if not all(map(decodable, self._names)):
            raise InputError(f"{path}, line 1 {_NOT_UTF8}")
        if not any(self._names):
            raise InputError(f"{path} is empty; its first line must name the columns")
        twice = [n for i, n in enumerate(self._names) if n and n in self._names[:i]]
        if twice:
            raise InputError(f"{path}, line 1 names the column {twice[0]!r} twice")
        if len(self._names) > _MOST_COLUMNS:
            raise InputError(f"{path} has {len(self._names):,} columns; at most {_MOST_COLUMNS:,} are read")

    def columns(self) -> list[Column]:
        """Those that the first line names."""
        return [Column(name=n) for n in self._names if n]

    def count(self) -> int | None:
        """None: nobody knows before the end."""
        return None

    def rows(self) -> Iterator[Row]:
        """Every row but the first; empty cells are left out. The file is read twice, the types being the
        columns'.
        """
        types = self._types()
        for row in self._raw():
            values = {n: _typed(text, types[n]) for n, text in row.values.items() if text}
            yield Row(number=row.number, where=row.where, values=values, error=row.error)

    def _types(self) -> dict[str, Callable[[str], Any] | None]:
        """What turns the cells of each column into values; None where they are text."""
        left = {n: list(_TYPES) for n in self._names}
        filled: set[str] = set()
        for row in self._raw():
            for name, text in row.values.items():
                if text:
                    filled.add(name)
                    if types := left[name]:
                        left[name] = [t for t in types if t(text) is not None]
        return {name: types[0] if types and name in filled else None for name, types in left.items()}

    def _raw(self) -> Iterator[Row]:
        try:
            with self._opened() as file:
                yield from self._lines(file)
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {reason(error)}") from error

    def _lines(self, file: IO[str]) -> Iterator[Row]:
        reader = self._reader(file)
        next(reader, None)
        number = 0
        while True:
            line = reader.line_num + 1
            where = f"{self.path}, line {line}"
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield Row(number=number, where=where, error=_damage(str(error), line, reader.line_num))
                number += 1
                continue
            if cells is None:
                return
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(self._names):
                why = f"the row has {len(cells)} cells, and the first line names {len(self._names)} columns"
                yield Row(number=number, where=where, error=why)
            elif not all(map(decodable, cells)):
                yield Row(number=number, where=where, error=f"the row {_NOT_UTF8}")
            else:
                values = {n: c.strip() for n, c in zip(self._names, cells, strict=True) if n}
                yield Row(number=number, where=where, values=values)
            number += 1

    def _reader(self, file: IO[str]) -> Any:
        return csv.reader(file, delimiter=self._delimiter, strict=True)

    def _opened(self) -> IO[str]:
        try:
            return self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {reason(error)}") from error


def _typed(text: str, type_: Callable[[str], Any] | None) -> Any:
    found = None if type_ is None else type_(text)  # the file may have changed since its types were found
    return text if found is None else found


def _delimiter(head: str, path: Path) -> str:
    """What stands between the names of the first line: of a .csv that may be a semicolon, as Excel has it."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    plain = re.sub(r'"[^"]*"', "", head)
    return max(_DELIMITERS, key=plain.count)


def _damage(said: str, first: int, last: int) -> str:
    if "unexpected end" in said:
        return "a quotation mark is opened and never closed: the lines from here to the end are lost"
    if "field limit" in said:
        return (
            f"a cell has more than {csv.field_size_limit():,} characters, or a quotation mark is never "
            "closed; base64 goes into JSONL or Parquet"
        )
    lines = f" (lines {first} to {last})" if last > first else ""
    return f"the row is damaged{lines}: {said}"
