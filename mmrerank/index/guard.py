"""Stands at both sides of a search: damaged vectors are an error, never an answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrerank.errors import ImageIndexError
from mmrerank.index.records import Records, crc
from mmrerank.index.vectors import VectorFiles
from mmrerank.ports import Vectors

_REBUILD = "index the source again with --rebuild"
_PORTION = 1 << 22  # bytes of vectors that are compared at a time


class Guard:
    """Checks what a search reads of ``files``. Every row that is answered is compared, once, with the
    checksum that ``records`` have of it. Thread-safe.
    """

    def __init__(self, files: VectorFiles, records: Records) -> None:
        self._files, self._records = files, records
        self._seen = np.zeros(0, dtype=bool)  # by row
        self._lock = threading.Lock()

    def before(self) -> None:
        """Raises `ImageIndexError` when a mapped file has become shorter."""
        self._files.check()

    def after(self, scores: Vectors, rows: NDArray[np.int64]) -> None:
        """Raises `ImageIndexError` unless scores are finite and the vectors in ``rows`` are as written."""
        self._files.check()
        if not np.isfinite(scores).all():
            raise ImageIndexError(f"{self._files.folder} is damaged: a score is not finite; {_REBUILD}")
        new = np.unique(rows)
        with self._lock:
            if len(new) and new[-1] >= len(self._seen):
                self._seen = np.concatenate([self._seen, np.zeros(new[-1] + 1 - len(self._seen), dtype=bool)])
            new = new[~self._seen[new]]
        for problem in damaged(self._files, self._records, new.tolist()):
            raise ImageIndexError(problem)
        with self._lock:
            self._seen[new] = True


def take(files: VectorFiles, records: Records, rows: Sequence[int]) -> Vectors:
    """Copies of these rows ``(n, dim)``. Raises `ImageIndexError` for one that is not as it was written."""
    taken = files.take(rows)
    for problem in _compared(files, records, rows, taken):
        raise ImageIndexError(problem)
    return np.asarray(taken, dtype=np.float32)


def damaged(files: VectorFiles, records: Records, rows: Sequence[int]) -> Iterator[str]:
    """Which of these rows are not as they were written, in words. Raises `ImageIndexError` as `take` does."""
    step = max(1, _PORTION // (files.dim * files.dtype.itemsize))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        yield from _compared(files, records, part, files.take(part))


def _compared(
    files: VectorFiles, records: Records, rows: Sequence[int], taken: NDArray[Any]
) -> Iterator[str]:
    known = records.checksums(rows)
    for row, vector in zip(rows, taken, strict=True):
        if crc(vector) != known.get(row) or not np.isfinite(vector).all() or not vector.any():
            yield f"{files.folder} is damaged: vector {row} (from 0) is not as it was written; {_REBUILD}"
