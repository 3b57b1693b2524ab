"""Exact search in NumPy: no index to build, no extra to install, fit for some hundred thousand vectors."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mmrerank.index.stores._order import Blocks
from mmrerank.index.stores._scan import scan
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
        return scan(self._blocks, queries, k, among)

    def save(self, folder: Path) -> None:
        """Nothing: the vectors themselves are all there is."""

    def load(self, folder: Path, vectors: Vectors | Rows) -> bool:
        """False: `build` costs nothing."""
        return False


def open() -> ExactStore:
    """An empty store."""
    return ExactStore()
