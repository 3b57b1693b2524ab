"""Exact search in FAISS: the same answers as ``exact``. Searches the vectors where they are.

An ``IndexFlatIP`` would hold a second copy of every vector in memory, and another on the disk. FAISS compares
as fast with blocks of the files that are mapped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mmrerank.index.stores._flat import SPARE, library, nearest, take
from mmrerank.index.stores._order import Blocks, Proposals
from mmrerank.index.stores._scan import scan
from mmrerank.ports import Rows, Vectors, VectorStore

_FEW = 3  # queries; FAISS reads the vectors once for each
_QUERIES = 1024  # that are compared at once; FAISS holds no score of every row


class FaissStore(VectorStore):
    """Compares a query with every row in FAISS. ``vectors`` are kept as given."""

    name: ClassVar[str] = "faiss"
    maps = True

    def __init__(self, faiss: Any) -> None:
        self._faiss = faiss
        self._blocks = self._filtered = Blocks(np.zeros((0, 0), dtype=np.float32))

    def build(self, vectors: Vectors | Rows) -> None:
        """Replaces the contents by ``vectors`` ``(n, dim)``."""
        self._blocks = Blocks(vectors, whole=True)
        self._filtered = Blocks(vectors)

    def search(
        self, queries: Vectors, k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and row numbers ``(q, min(k, n))``, best first; equal scores by row number.

        With ``among``, and for some queries at once that are too few for a matrix product in FAISS, NumPy
        compares them: it is faster there.
        """
        count = len(queries)
        blas = count * self._filtered.vectors.shape[1] >= self._faiss.cvar.distance_compute_blas_threshold
        if among is not None or (count > _FEW and not blas):
            return scan(self._filtered, queries, k, among)
        k = min(k, len(self._blocks))
        scores = np.zeros((count, k), dtype=np.float32)
        rows = np.zeros((count, k), dtype=np.int64)
        for part in np.array_split(np.arange(count), -(-count // _QUERIES)) if k and count else ():
            scores[part], rows[part] = self._nearest(queries[part], k)
        return scores, rows

    def _nearest(self, queries: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        found = [Proposals(query, self._blocks.vectors, k) for query in queries]
        for first, block, longest in self._blocks:
            count = min(len(block), k + SPARE)
            rough, places = self._faiss.knn(queries, block, count, metric=self._faiss.METRIC_INNER_PRODUCT)
            take(found, (rough, places), first, block, longest)
        return nearest(found)

    def save(self, folder: Path) -> None:
        """Nothing: the vectors themselves are all there is."""

    def load(self, folder: Path, vectors: Vectors | Rows) -> bool:
        """False: `build` costs nothing."""
        return False


def open() -> FaissStore:
    """An empty store. Raises `MissingExtraError` when FAISS is not installed."""
    return FaissStore(library(FaissStore.name))
