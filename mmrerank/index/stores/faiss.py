"""Exact search in FAISS (``IndexFlatIP``): the same answers as ``exact``, faster on many vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mmrerank.errors import MissingExtraError
from mmrerank.index.stores._order import best, longest, slack
from mmrerank.ports import Vectors, VectorStore

_FILE = "flat.index"
_FLAT = b"IxFI"
"""What a file of a flat index by inner product begins with."""
_BLOCK_ROWS = 65_536
_SPARE = 32  # rows asked for beyond k, so that ties at the edge rarely take a second search


class FaissStore(VectorStore):
    """A flat FAISS index over the rows."""

    name: ClassVar[str] = "faiss"

    def __init__(self, faiss: Any) -> None:
        self._faiss = faiss
        self._index: Any = None
        self._vectors: Vectors = np.zeros((0, 0), dtype=np.float32)
        self._longest = 0.0

    def build(self, vectors: Vectors) -> None:
        """Replaces the contents by ``vectors`` ``(n, dim)``."""
        index = self._faiss.IndexFlatIP(vectors.shape[1])
        for start in range(0, len(vectors), _BLOCK_ROWS):
            index.add(np.ascontiguousarray(vectors[start : start + _BLOCK_ROWS], dtype=np.float32))
        self._adopt(index, vectors)

    def _adopt(self, index: Any, vectors: Vectors) -> None:
        self._index, self._vectors = index, vectors
        self._longest = longest(vectors)

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and row numbers ``(q, min(k, n))``, best first; equal scores by row number."""
        n = len(self._vectors)
        k = min(k, n)
        scores = np.zeros((len(queries), k), dtype=np.float32)
        rows = np.zeros((len(queries), k), dtype=np.int64)
        if not k or not len(queries):
            return scores, rows
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        rough, found = self._index.search(queries, min(n, k + _SPARE))
        for i, query in enumerate(queries):
            edge = rough[i, k - 1] - slack(query, self._longest)
            near = found[i][rough[i] >= edge]
            if len(near) == found.shape[1] < n:
                # FAISS keeps those strictly above the radius.
                radius = float(np.nextafter(np.float32(edge), np.float32(-np.inf)))
                _, _, near = self._index.range_search(query[None], radius)
            scores[i], rows[i] = best(query, self._vectors, near, k)
        return scores, rows

    def save(self, folder: Path) -> None:
        """Writes the index into ``folder``. Raises `OSError`, and leaves nothing, where it cannot."""
        folder.mkdir(exist_ok=True)
        temporary = folder / f".{_FILE}.tmp"
        try:
            self._faiss.write_index(self._index, str(temporary))
        except RuntimeError as error:  # FAISS's answer to a full disk, and to every other refusal
            temporary.unlink(missing_ok=True)
            raise OSError(" ".join(str(error).split())) from error
        temporary.replace(folder / _FILE)

    def load(self, folder: Path, vectors: Vectors) -> bool:
        """Takes over what `save` wrote for the same ``vectors``; False when it is not usable."""
        file = folder / _FILE
        try:
            # FAISS would read any of its kinds, some of which name further files
            with file.open("rb") as opened:
                flat = opened.read(len(_FLAT)) == _FLAT
            index = self._faiss.read_index(str(file)) if flat else None
        except (OSError, RuntimeError):
            return False
        if index is None:
            return False
        if (index.ntotal, index.d) != vectors.shape:
            return False
        self._adopt(index, vectors)
        return True


def open() -> FaissStore:
    """An empty store. Raises `MissingExtraError` when FAISS is not installed."""
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError(
            'the store "faiss" needs FAISS: pip install "mmrerank[cpu]" (or "mmrerank[gpu]"); '
            'the store "exact" needs nothing'
        ) from error
    return FaissStore(faiss)
