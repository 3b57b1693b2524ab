"""A graph in which every row knows near ones, on several levels; a search walks it (HNSW, by FAISS).

Malkov, Yashunin: Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small
World graphs, IEEE TPAMI 42(4), 2020. Rows that go stay in the graph as ways to others. They are never found.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mmrerank.index import arrays
from mmrerank.index.stores._approximate import ApproximateStore
from mmrerank.index.stores._flat import library
from mmrerank.index.stores._order import steps
from mmrerank.index.stores._reduced import PORTION, reduced, reduced_among
from mmrerank.ports import Rows, Vectors

_LINKS = 16  # to others, of a row on each level; twice as many on the lowest
_CONSTRUCTION = 40  # rows that are looked at to find them
_MOST_EFFORT = 4096


class FaissHnswStore(ApproximateStore):
    """Walks the graph with shortened vectors; an effort is a row that it holds on to (``ef``)."""

    name: ClassVar[str] = "faiss_hnsw"
    _apart = False

    def __init__(self, faiss: Any) -> None:
        super().__init__(faiss)
        self._index: Any = None
        self._rows = np.zeros(0, dtype=np.int64)  # of each place in the graph, -1 where it is gone

    def _make(self, vectors: Vectors | Rows, matrix: Vectors) -> None:
        self._index = self._empty(len(matrix))
        for start, stop in steps(len(vectors), PORTION):
            self._index.add(reduced(vectors, matrix, start, stop))
        self._rows = np.arange(len(vectors), dtype=np.int64)

    def _empty(self, width: int) -> Any:
        index = self._faiss.IndexHNSWFlat(width, _LINKS, self._faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _CONSTRUCTION
        return index

    def _efforts(self) -> tuple[list[int], float]:
        # a walk looks at the neighbours of each row that it holds on to
        return [2**i for i in range(4, _MOST_EFFORT.bit_length())], float(2 * _LINKS)

    def _propose(
        self, queries: Vectors, effort: int, proposals: int, kept: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        faiss, at = self._faiss, self._rows
        alive = at >= 0
        if kept is not None:
            alive[alive] = kept[at[alive]]
        options: dict[str, Any] = {"efSearch": max(effort, proposals)}
        if not alive.all():
            bits = np.packbits(alive, bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(bits)
        found = self._index.search(queries, proposals, params=faiss.SearchParametersHNSW(**options))[1]
        return np.where(found >= 0, at[found], -1)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        faiss, graph = self._faiss, self._index.hnsw
        count, width = self._index.ntotal, self._index.d
        places = faiss.rev_swig_ptr(faiss.downcast_index(self._index.storage).get_xb(), count * width)
        return {
            "places": places.reshape(count, width),
            "levels": faiss.vector_to_array(graph.levels),
            "neighbours": faiss.vector_to_array(graph.neighbors),
            "rows_of": self._rows,
            "entry": np.array([graph.entry_point], dtype=np.int64),
        }

    def _restore(self, folder: Path, n: int, matrix: Vectors) -> None:
        """FAISS follows every link without a look: each must lead to a place of that level."""
        faiss, width = self._faiss, len(matrix)
        index = self._empty(width)
        rows = arrays.read(folder, "rows_of", np.int64, (None,), most=2 * n)
        arrays.check_range(rows, -1, n)
        count = len(rows)
        if not np.array_equal(np.sort(rows[rows >= 0]), np.arange(n)):
            raise ValueError("it is a graph of other rows")
        places = arrays.read(folder, "places", np.float32, (count, width))
        arrays.check_finite(places)
        levels = arrays.read(folder, "levels", np.int32, (count,))
        arrays.check_range(levels, 1, index.hnsw.cum_nneighbor_per_level.size())
        room = np.array([index.hnsw.cum_nb_neighbors(i) for i in range(int(levels.max()) + 1)])
        offsets = np.concatenate([[0], np.cumsum(room[levels])]).astype(np.uint64)
        links = arrays.read(folder, "neighbours", np.int32, (int(offsets[-1]),))
        arrays.check_range(links, -1, count)
        _check_levels(links, levels, offsets[:-1].astype(np.int64), room)
        (entry,) = arrays.read(folder, "entry", np.int64, (1,)).tolist()
        if not 0 <= entry < count or levels[entry] != levels.max():
            raise ValueError("a walk cannot begin where it is said to")
        index.storage.add(places)
        index.ntotal = count
        graph = index.hnsw
        faiss.copy_array_to_vector(levels, graph.levels)
        faiss.copy_array_to_vector(offsets, graph.offsets)
        graph.neighbors.resize(len(links))
        faiss.copy_array_to_vector(links, graph.neighbors)
        graph.max_level = int(levels.max()) - 1
        graph.entry_point = entry
        self._index, self._rows = index, rows

    def _follow(self, vectors: Vectors | Rows, matrix: Vectors, moved: NDArray[np.int64]) -> None:
        rows = np.full_like(self._rows, -1)
        alive = self._rows >= 0
        rows[alive] = moved[self._rows[alive]]
        new = np.ones(len(vectors), dtype=bool)
        new[rows[rows >= 0]] = False
        at = np.flatnonzero(new)
        if len(at):
            self._index.add(reduced_among(vectors, matrix, at))
        self._rows = np.concatenate([rows, at])


def _check_levels(
    links: NDArray[np.int32], levels: NDArray[np.int32], offsets: NDArray[np.int64], room: NDArray[np.int64]
) -> None:
    """Raises `ValueError` for a link of a level to a place that has no such level."""
    for level in range(1, len(room) - 1):
        at = offsets[levels > level]
        slots = at[:, None] + np.arange(room[level], room[level + 1])
        there = links[slots]
        if (levels[there[there >= 0]] <= level).any():
            raise ValueError("a link leads to a place that has no such level")


def open() -> FaissHnswStore:
    """An empty store. Raises `MissingExtraError` when FAISS is not installed."""
    return FaissHnswStore(library(FaissHnswStore.name))
