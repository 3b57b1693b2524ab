"""Reads the tables of benchmarks (CSV, JSON, JSON lines, Parquet; any of the text ones gzipped) row by row.

Every complaint names the file, the row (counted from 0, as the benchmarks' own code does) and the column.
No benchmark's format is known here.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from mmrerank.errors import InputError, MissingExtraError
from mmrerank.paths import reason
from mmrerank.reading import whole


class TableRow:
    """One row of a table: values by column, which complain with their place when they are wrong."""

    __slots__ = ("_values", "path", "prefix", "row")

    def __init__(self, path: Path, row: int | str, values: Mapping[str, Any], prefix: str = "") -> None:
        self.path, self.row, self._values, self.prefix = path, row, values, prefix

    def wrong(self, column: str, what: str) -> InputError:
        """The error that says where, and ``what`` is wrong there."""
        row = f"row {self.row} (from 0)" if isinstance(self.row, int) else f"entry {self.row!r}"
        return InputError(f"{self.path}, {row}, column {self.prefix + column!r}: {what}")

    def has(self, column: str) -> bool:
        """Whether the row has a value there."""
        return self._values.get(column) is not None

    def get(self, column: str) -> Any:
        """The value as it is. Raises `InputError` when there is none."""
        if self._values.get(column) is None:
            known = ", ".join(map(repr, self._values))
            raise self.wrong(column, f"there is no value; the row has {known or 'nothing'}")
        return self._values[column]

    def text(self, column: str, *, empty: bool = False) -> str:
        """A text, or a number as text; not empty, unless ``empty``."""
        value = self.get(column)
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise self.wrong(column, f"must be a text, not {_shown(value)}")
        if not empty and not str(value).strip():
            raise self.wrong(column, "is empty")
        return str(value)

    def integer(self, column: str) -> int:
        """A whole number, also one written as text or as ``3.0``."""
        return self._integer(column, self.get(column))

    def _integer(self, column: str, value: Any) -> int:
        try:
            number = float(value) if not isinstance(value, int) else value
            if isinstance(value, bool) or number != int(number):
                raise ValueError
            return int(number)
        except (TypeError, ValueError, OverflowError):
            raise self.wrong(column, f"must be a whole number, not {_shown(value)}") from None

    def texts(self, column: str, *, empty: bool = False) -> list[str]:
        """A list of texts; a list written as a text (JSON or Python) counts as one."""
        found = []
        for value in self.sequence(column):
            if not isinstance(value, str):
                raise self.wrong(column, f"must hold texts, not {_shown(value)}")
            if not empty and not value.strip():
                raise self.wrong(column, "holds an empty text")
            found.append(value)
        return found

    def integers(self, column: str) -> list[int]:
        """A list of whole numbers, as `texts`."""
        return [self._integer(column, v) for v in self.sequence(column)]

    def sequence(self, column: str) -> list[Any]:
        """A list, or one written as a text."""
        value = self.get(column)
        if isinstance(value, str):
            value = _written(value)
        if not isinstance(value, list):
            raise self.wrong(column, f"must be a list, not {_shown(self.get(column))}")
        return value

    def record(self, column: str) -> TableRow:
        """A nested object; its columns are called ``column.name``."""
        value = self.get(column)
        if not isinstance(value, dict):
            raise self.wrong(column, f"must be an object, not {_shown(value)}")
        return TableRow(self.path, self.row, value, f"{self.prefix}{column}.")


def _written(text: str) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class Unique:
    """Tells ids that occur again: ``unique.add(id, record, column)`` raises where the second one stands."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._seen: dict[Any, Any] = {}

    def add(self, id_: Any, record: TableRow, column: str) -> None:
        """Remembers ``id_``. Raises `InputError` when it was there before."""
        if id_ in self._seen:
            first = self._seen[id_]
            raise record.wrong(column, f"{self._what} {id_!r} occurs again, first in row {first}")
        self._seen[id_] = record.row


_noted: ContextVar[dict[Path, None] | None] = ContextVar("_noted", default=None)


@contextmanager
def noting() -> Iterator[dict[Path, None]]:
    """Gathers the files that are read meanwhile, in order: what a benchmark's data came from."""
    found: dict[Path, None] = {}
    token = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(token)


def note(path: Path) -> None:
    """Says that ``path`` is read, to `noting`."""
    if (found := _noted.get()) is not None:
        found[path] = None


def read_bytes(path: Path) -> bytes:
    """A file, decompressed when its name ends in ``.gz``. Raises `InputError`."""
    note(path)
    try:
        return whole(path, packed=path.suffix == ".gz")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def _read_text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from error


def parse_json(text: str, path: Path) -> Any:
    """JSON; an object that has a key twice is refused, since one of the two would be lost."""

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InputError(f"{path}: the key {key!r} occurs twice in one object")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=object_of)
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    except RecursionError:
        raise InputError(f"{path} is nested too deeply") from None


def read_json(path: Path) -> Any:
    """The JSON document at ``path``."""
    return parse_json(_read_text(path), path)


def json_rows(path: Path, needed: Sequence[str] = ()) -> list[TableRow]:
    """The objects of a JSON list. ``needed`` are columns that the first row must have."""
    return rows_of(read_json(path), path, needed)


def json_names(path: Path, what: str) -> list[str]:
    """A JSON list of texts, each once. Raises `InputError` naming the row that is wrong or there again."""
    body = read_json(path)
    if not isinstance(body, list):
        raise InputError(f"{path} must hold a JSON list, each row {what}")
    found: dict[str, None] = {}
    for number, name in enumerate(body):
        if not isinstance(name, str) or not name:
            raise InputError(f"{path}, row {number} (from 0): {what} is a text, not {_shown(name)}")
        if name in found:
            raise InputError(f"{path}, row {number} (from 0): {what}, {name!r}, occurs again")
        found[name] = None
    return list(found)


def rows_of(body: Any, path: Path, needed: Sequence[str] = ()) -> list[TableRow]:
    """The objects of a list that was read from ``path``."""
    if not isinstance(body, list):
        raise InputError(f"{path} must hold a JSON list, not {_shown(body)}")
    rows = []
    for number, value in enumerate(body):
        if not isinstance(value, dict):
            raise InputError(
                f"{path}, row {number} (from 0) must be an object with the columns "
                f"{', '.join(needed) or 'of the benchmark'}, not {_shown(value)}"
            )
        rows.append(TableRow(path, number, value))
    for row in rows:
        for column in needed:
            row.get(column)
    return rows


def read_rows(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> list[TableRow]:
    """The rows of a table by the ending of its name: csv, jsonl, json or parquet.

    Of a Parquet file only the columns named are read. Raises `InputError` when a needed column is missing.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return list(_parquet(path, needed, optional))
    if name.endswith(".csv"):
        return list(_csv(path, needed))
    if name.endswith(".jsonl"):
        return list(json_lines(path, needed))
    if name.endswith(".json"):
        return json_rows(path, needed)
    raise InputError(f"{path}: a table ends in .csv, .jsonl, .json (each may be .gz) or .parquet")


def _lacking(path: Path, columns: Iterable[str], needed: Sequence[str]) -> None:
    known = list(columns)
    for column in needed:
        if column not in known:
            raise InputError(
                f"{path}, row 0 (the header), column {column!r}: there is no such column; "
                f"the table has {', '.join(map(repr, known))}"
            )


def _csv(path: Path, needed: Sequence[str]) -> Iterator[TableRow]:
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""), strict=True)
    try:
        _lacking(path, reader.fieldnames or (), needed)
        for number, values in enumerate(reader):
            # a blank cell of a column that may be left out is no value
            given = {k: v for k, v in values.items() if k is not None and (v or k in needed)}
            record = TableRow(path, number, given)
            if None in values:
                last = (reader.fieldnames or ("",))[-1]
                raise record.wrong(last, f"the row has {len(values[None])} values too many")
            for column in needed:
                record.get(column)
            yield record
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}") from error


def json_lines(path: Path, needed: Sequence[str] = ()) -> Iterator[TableRow]:
    """The objects of a file with one JSON object a line; empty lines are left out, and not counted."""
    number = 0
    for line in _read_text(path).split("\n"):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, row {number} (from 0) is not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise InputError(f"{path}, row {number} (from 0) must be an object, not {_shown(values)}")
        record = TableRow(path, number, values)
        for column in needed:
            record.get(column)
        yield record
        number += 1


def _parquet(path: Path, needed: Sequence[str], optional: Sequence[str]) -> Iterator[TableRow]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError(f"reading {path.name} needs pyarrow: pip install 'mmrerank[eval]'") from error
    note(path)
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _lacking(path, names, needed)
            number = 0
            for batch in file.iter_batches(
                columns=[c for c in (*needed, *optional) if c in names], batch_size=4096
            ):
                for values in batch.to_pylist():
                    yield TableRow(path, number, values)
                    number += 1
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
