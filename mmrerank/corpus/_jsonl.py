"""Reads JSON lines, row by row: an object a line. A line that is damaged is one row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from mmrerank.corpus._rows import Column, Row
from mmrerank.errors import InputError
from mmrerank.paths import reason

MOST_LINE = 256 * 1024 * 1024
"""Bytes of a line: it is held in memory."""


class Jsonl:
    """The file ``path``. Its columns are the keys of its first good line. Raises `InputError` as it reads."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def columns(self) -> list[Column]:
        """The keys of the first line that is an object."""
        first = None
        for row in self.rows():
            first = first or row
            if not row.error:
                return [Column(name=str(key), kind=type(value).__name__) for key, value in row.values.items()]
        if first is None:
            raise InputError(f"{self.path} is empty; an object a line is needed")
        raise InputError(f"{first.where}: {first.error}")

    def count(self) -> int | None:
        """None: nobody knows before the end."""
        return None

    def rows(self) -> Iterator[Row]:
        """Every line that is not blank."""
        number = 0
        try:
            with self.path.open("rb") as file:
                line = 0
                while data := file.readline(MOST_LINE):
                    line += 1
                    where = f"{self.path}, line {line}"
                    if len(data) == MOST_LINE and not data.endswith(b"\n"):
                        why = f"the line has more than {MOST_LINE:,} bytes"
                        yield Row(number=number, where=where, error=why)
                        while data and not data.endswith(b"\n"):
                            data = file.readline(MOST_LINE)
                        number += 1
                        continue
                    if not data.strip():
                        continue
                    yield _row(data.removeprefix(b"\xef\xbb\xbf") if line == 1 else data, number, where)
                    number += 1
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {reason(error)}") from error


def _row(data: bytes, number: int, where: str) -> Row:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        return Row(number=number, where=where, error=f"the line is not JSON: {error}")
    if not isinstance(values, dict):
        return Row(number=number, where=where, error="the line is no JSON object")
    return Row(number=number, where=where, values=values)
