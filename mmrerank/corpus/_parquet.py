"""Reads Parquet, some rows at a time, with pyarrow. How pyarrow takes a hostile file is its own affair."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmrerank.corpus._rows import Column, Row
from mmrerank.errors import InputError, MissingExtraError
from mmrerank.paths import LFS_WAY, is_lfs_pointer, reason

_ROWS = 64
"""Rows that are held at a time: each may be a photograph of megabytes."""


_BUFFER = 1 << 20
"""Bytes that are read at once: without it a column's whole part of a row group is."""


class Parquet:
    """The file ``path``. Raises `InputError` where it is none, `MissingExtraError` without pyarrow."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as file:
            self._columns = [Column(name=f.name, kind=_kind(f.type)) for f in file.schema_arrow]
            self._count = int(file.metadata.num_rows)

    def columns(self) -> list[Column]:
        """The columns of the schema, with their types."""
        if not self._columns:
            raise InputError(f"{self.path} has no columns")
        return self._columns

    def count(self) -> int | None:
        """The number in the file's footer."""
        return self._count

    def rows(self, *, without: frozenset[str] = frozenset()) -> Iterator[Row]:
        """Every row, without the columns that are named. Damage ends the file with a row that says so: what
        follows cannot be found.
        """
        import pyarrow

        number = 0
        wanted = [c.name for c in self._columns if c.name not in without]
        try:
            with self._opened() as file:
                for batch in file.iter_batches(batch_size=_ROWS, columns=wanted, use_threads=False):
                    for values in batch.to_pylist():
                        yield Row(number=number, where=f"{self.path}, row {number} (from 0)", values=values)
                        number += 1
        except (OSError, ValueError, OverflowError, pyarrow.ArrowException) as error:
            where = f"{self.path}, row {number} (from 0)"
            yield Row(number=number, where=where, error=f"the table cannot be read on: {one_line(error)}")

    def _opened(self) -> Any:
        parquet = library()
        import pyarrow

        try:
            return parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=_BUFFER)
        except (OSError, pyarrow.ArrowException) as error:
            if is_lfs_pointer(self.path):
                raise InputError(f"{self.path} {LFS_WAY}") from error
            why = reason(error) if isinstance(error, OSError) and error.errno else one_line(error)
            raise InputError(f"{self.path} cannot be read as Parquet: {why}") from error


def library() -> Any:
    """``pyarrow.parquet``. Raises `MissingExtraError` where it is not installed."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError("Parquet needs pyarrow: pip install 'mmrerank[parquet]'") from error
    return parquet


def one_line(error: BaseException) -> str:
    """What a library said, short."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _kind(type_: Any) -> str:
    text = str(type_)
    return text if len(text) <= 60 else f"{text[:57]}..."
