"""Exact search in NumPy: no index to build, no extra to install, fit for some hundred thousand vectors."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mmrerank.index.stores._order import QUERIES, Blocks, Proposals, Subset
from mmrerank.ports import Rows, Vectors, VectorStore


class ExactStore(VectorStore):
    """Compares a query with every row. ``vectors`` are kept as given, memory-mapped ones unread."""

    name: ClassVar[str] = "exact"
    maps = True

    def __init__(self) -> None:
        self._blocks = Blocks(np.zeros((0, 0), dtype=np.float32))

    def build(self, vectors: Vectors | Rows) -> None:
        """Replaces the contents by ``vectors`` ``(n, dim)``."""
        self._blocks = Blocks(vectors)

    def search(
        self, queries: Vectors, k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and row numbers ``(q, min(k, n))``, best first; equal scores by row number."""
        if among is None:
            return self._among(self._blocks, queries, k)
        scores, rows = self._among(Blocks(Subset(self._blocks.vectors, among)), queries, k)
        return scores, among[rows]

    def _among(self, blocks: Blocks, queries: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
        k = min(k, len(blocks))
        scores = np.zeros((len(queries), k), dtype=np.float32)
        rows = np.zeros((len(queries), k), dtype=np.int64)
        for start in range(0, len(queries) if k else 0, QUERIES):
            part = np.asarray(queries[start : start + QUERIES], dtype=np.float32)
            found = [Proposals(query, blocks.vectors, k) for query in part]
            for first, block, longest in blocks:
                rough = part @ block.T
                near = rough >= np.array([f.least(longest) for f in found], dtype=np.float32)[:, None]
                for i in np.flatnonzero(near.any(axis=1)):
                    at = np.flatnonzero(near[i])
                    found[i].add(at + first, rough[i, at], longest)
            for number, one in enumerate(found, start):
                scores[number], rows[number] = one.nearest()
        return scores, rows

    def save(self, folder: Path) -> None:
        """Nothing: the vectors themselves are all there is."""

    def load(self, folder: Path, vectors: Vectors | Rows) -> bool:
        """False: `build` costs nothing."""
        return False


def open() -> ExactStore:
    """An empty store."""
    return ExactStore()
