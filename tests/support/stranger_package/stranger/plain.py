"""Plain: a vector store that compares with every row, one query at a time."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mmrerank.ports import Vectors, VectorStore


class Plain(VectorStore):
    """Keeps the vectors and nothing else."""

    name: ClassVar[str] = "plain"

    def __init__(self) -> None:
        self._vectors: Vectors = np.zeros((0, 0), np.float32)

    def build(self, vectors: Vectors) -> None:
        """Keeps them."""
        self._vectors = vectors

    def search(
        self, queries: Vectors, k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """Exact scores in double precision, ties by row."""
        some = np.arange(len(self._vectors)) if among is None else among
        k = min(k, len(some))
        scores = np.zeros((len(queries), k), np.float32)
        rows = np.zeros((len(queries), k), np.int64)
        for n, query in enumerate(queries.astype(np.float64)):
            exact = np.array([(v * query).sum() for v in self._vectors[some].astype(np.float64)])
            found = exact.astype(np.float32)
            best = np.lexsort((some, -found))[:k]
            rows[n], scores[n] = some[best], found[best]
        return scores, rows


def open() -> Plain:
    """An empty store."""
    return Plain()
