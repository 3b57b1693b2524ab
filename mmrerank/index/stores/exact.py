"""Exact search in NumPy: no index to build, no extra to install, fit for some hundred thousand vectors."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mmrerank.index.stores._order import best, longest, slack
from mmrerank.ports import Vectors, VectorStore

_BLOCK_ROWS = 65_536
_SCORES = 16_000_000  # scores held at once: 64 MB


class ExactStore(VectorStore):
    """Compares a query with every row. ``vectors`` are kept as given, memory-mapped ones unread."""

    name: ClassVar[str] = "exact"

    def __init__(self) -> None:
        self._vectors: Vectors = np.zeros((0, 0), dtype=np.float32)
        self._longest = 0.0

    def build(self, vectors: Vectors) -> None:
        """Replaces the contents by ``vectors`` ``(n, dim)``."""
        self._vectors = vectors
        self._longest = longest(vectors)

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and row numbers ``(q, min(k, n))``, best first; equal scores by row number."""
        n = len(self._vectors)
        k = min(k, n)
        scores = np.zeros((len(queries), k), dtype=np.float32)
        rows = np.zeros((len(queries), k), dtype=np.int64)
        step = max(1, _SCORES // max(n, 1))
        for start in range(0, len(queries) if k else 0, step):
            part = queries[start : start + step]
            rough = np.empty((len(part), n), dtype=np.float32)
            for block in range(0, n, _BLOCK_ROWS):
                end = block + _BLOCK_ROWS
                rough[:, block:end] = part @ self._vectors[block:end].T
            for i, query in enumerate(part):
                kth = np.partition(rough[i], n - k)[n - k]
                near = np.flatnonzero(rough[i] >= kth - slack(query, self._longest))
                scores[start + i], rows[start + i] = best(query, self._vectors, near, k)
        return scores, rows

    def save(self, folder: Path) -> None:
        """Nothing: the vectors themselves are all there is."""

    def load(self, folder: Path, vectors: Vectors) -> bool:
        """False: `build` costs nothing."""
        return False


def open() -> ExactStore:
    """An empty store."""
    return ExactStore()
