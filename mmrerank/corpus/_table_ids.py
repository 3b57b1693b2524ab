"""The names of images in Parquet files, a row for each vector: beside the vectors, or in tables of their own.

clip-retrieval writes ``img_emb/img_emb_*.npy`` and ``metadata/metadata_*.parquet``, and so do INQUIRE's
published embeddings, whose ``image_path`` has no suffix (inquire-benchmark/INQUIRE, 1c1361a, src/utils.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmrerank.corpus._columns import IDS, IMAGES, plain
from mmrerank.corpus._ids import IdFile
from mmrerank.corpus._match import outside, relative
from mmrerank.corpus._parquet import Parquet
from mmrerank.errors import InputError, one_line

_NAMES = ("image_path", *(n for n in IMAGES if "url" not in n), "key", *IDS, "url")
"""Names of columns that name images: in these tables they are paths, or keys of a data set."""


class TableIds(IdFile):
    """The rows of ``tables``, whose column ``column`` (empty: the likeliest) names images below ``root``.

    Columns in ``left_out`` are no metadata. Raises as `IdFile` does.
    """

    def __init__(
        self, tables: Sequence[Path], root: Path, *, column: str = "", left_out: Sequence[str] = ()
    ) -> None:
        self._tables = [Parquet(path) for path in tables]
        self._columns = [_column(t, column, left_out) for t in self._tables]
        self._without = frozenset(left_out)
        self._starts = [0]
        for table in self._tables:
            self._starts.append(self._starts[-1] + (table.count() or 0))
        self.lengths = [table.count() or 0 for table in self._tables]
        super().__init__(tables[0], root)

    def _where(self, row: int) -> str:
        number = max(n for n, start in enumerate(self._starts[:-1]) if start <= row or not n)
        return f"{self._tables[number].path}, row {row - self._starts[number]} (from 0)"

    def _short(self, row: int) -> str:
        return self._where(row)

    def _again(self) -> Path:
        return self._path

    def _lines(self) -> Iterator[tuple[str, dict[str, Any], str]]:
        for table, column in zip(self._tables, self._columns, strict=True):
            for row in table.rows(without=self._without):
                if row.error:
                    raise InputError(f"{row.where}: {row.error}")
                value = row.values.get(column)
                name = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
                if not isinstance(name, str) or not name.strip() or "\0" in name:
                    raise InputError(f"{row.where}: the column {column!r} names no image")
                inside = relative(name, self._root)
                if not inside:
                    why = outside(name, self._root, self._finder)
                    raise InputError(f"{row.where}: image {one_line(name, 300)!r} {why}")
                yield inside, plain({k: v for k, v in row.values.items() if k != column}, row.where), name


def _column(table: Parquet, column: str, left_out: Sequence[str]) -> str:
    names = [c.name for c in table.columns() if c.name not in left_out]
    found = (
        [n for n in names if n == column]
        if column
        else [n for wanted in dict.fromkeys(_NAMES) for n in names if n.casefold() == wanted]
    )
    if not found:
        what = f"no column {column!r}" if column else "no column that names images, such as 'image_path'"
        there = ", ".join(map(str, table.columns()[:40]))
        raise InputError(f"{table.path} has {what}; its columns are {there}")
    return found[0]
