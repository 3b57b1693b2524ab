"""Writes what a run has found, in a thread of its own, while the model computes the next vectors.

In the order that makes a run safe to kill: vectors reach the disk first, then one transaction names them. One
portion is written at a time; `Writer.write` waits for the one before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from mmrerank.index.kept import Kept
from mmrerank.index.records import Record, Records
from mmrerank.index.vectors import VectorFiles
from mmrerank.ports import Vectors


class Writer:
    """The writing side of a run. ``seen`` is another connection to the database of ``records``.

    Used by one thread. What goes wrong in its own is raised by the next call. At the end of a ``with`` what
    was begun is finished.
    """

    def __init__(self, records: Records, seen: Records, files: VectorFiles, kept: Kept) -> None:
        self._records, self._seen, self._files, self._kept = records, seen, files, kept
        self.rows = records.vectors
        """How many vectors there are, with those that are being written."""
        self._under_way: dict[str, int] = {}  # the rows that are being written, by hash
        self._current: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")

    def row_of(self, sha256: str) -> int | None:
        """The row that was made from these bytes, written or under way."""
        row = self._under_way.get(sha256)
        return self._seen.row_of(sha256) if row is None else row

    def write(self, hashes: Sequence[str], vectors: Vectors | None, records: Sequence[Record]) -> None:
        """Begins to write ``vectors`` of images with these hashes, and ``records``.

        A record without a row gets that of its hash: one of these, or one that was written before. Raises
        what went wrong with the portion before this one: `ImageIndexError` or `OSError`.
        """
        self.wait()
        rows = {h: self.rows + i for i, h in enumerate(hashes)}
        named = []
        for record in records:
            if record.row is None:
                content = record.sha256 or ""
                row = rows[content] if content in rows else self._seen.row_of(content)
                record = dataclasses.replace(record, row=row)
            named.append(record)
        self._under_way = rows
        self._current = self._thread.submit(self._write, self.rows, hashes, vectors, named)
        self.rows += len(hashes)

    def _write(
        self, first: int, hashes: Sequence[str], vectors: Vectors | None, records: Sequence[Record]
    ) -> None:
        if vectors is not None:
            vectors = self._files.stored(vectors)
            self._files.append(vectors, first)
        self._kept.sync()
        with self._records.transaction():
            if vectors is not None:
                self._records.add_vectors(first, hashes, vectors)
            for record in records:
                self._records.put(record)

    def wait(self) -> None:
        """Returns when everything is on the disk; raises what went wrong."""
        current, self._current = self._current, None
        if current is not None:
            current.result()
            self._under_way = {}

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if kind is None:
            self.wait()
