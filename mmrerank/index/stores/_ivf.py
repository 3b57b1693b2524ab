"""Lists of rows around centres, each row as a short code: what IVF-PQ and IVF-RaBitQ have in common.

Kept are the list and the code of each row, in row order; FAISS gets them packed. New rows get a code by the
same centres, and rows that go leave: nothing is learnt again.
"""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrerank.index import arrays
from mmrerank.index.stores._approximate import ApproximateStore
from mmrerank.index.stores._order import steps
from mmrerank.index.stores._reduced import PORTION, reduced, reduced_among, sample
from mmrerank.ports import Rows, Vectors

_MOST_LISTS = 1 << 16
_TRAINED_ON = 64
"""Rows for each list that its centre is learnt from."""
_ROUNDS = 10


def lists_for(n: int) -> int:
    """The power of two that is nearest to twice the square root of the number of rows."""
    return int(min(_MOST_LISTS, 2 ** round(np.log2(2 * np.sqrt(n)))))


class IvfStore(ApproximateStore, abc.ABC):
    """Looks through the lists whose centres are nearest; an effort is a list."""

    def __init__(self, faiss: Any) -> None:
        super().__init__(faiss)
        self._centres = np.zeros((0, 0), dtype=np.float32)
        self._lists = np.zeros(0, dtype=np.int32)  # (n,) of each row
        self._codes = np.zeros((0, 0), dtype=np.uint8)  # (n, bytes) of each row
        self._coder: Any = None
        self._index: Any = None
        self._quantizer: Any = None

    @abc.abstractmethod
    def _empty(self, quantizer: Any, width: int, lists: int) -> Any:
        """An index of FAISS for codes, untrained."""

    @abc.abstractmethod
    def _packed(self, index: Any) -> Any:
        """The same index in the form that is searched fast."""

    @abc.abstractmethod
    def _learnt(self) -> dict[str, NDArray[Any]]:
        """What `_empty` gives has learnt for its codes, beside the centres."""

    @abc.abstractmethod
    def _relearn(self, folder: Path, coder: Any) -> None:
        """Takes what `_learnt` gave. Raises `ValueError`."""

    def _make(self, vectors: Vectors | Rows, matrix: Vectors) -> None:
        faiss, width, count = self._faiss, len(matrix), lists_for(len(vectors))
        rows = sample(vectors, _TRAINED_ON * count) @ matrix.T
        learning = faiss.Clustering(width, count)
        learning.niter, learning.seed, learning.max_points_per_centroid = _ROUNDS, 1, _TRAINED_ON
        learning.min_points_per_centroid = 1
        learning.train(rows, faiss.IndexFlatL2(width))
        self._centres = faiss.vector_to_array(learning.centroids).reshape(count, width).copy()
        self._coder = self._coder_of(width)
        self._coder.train(rows)
        self._lists = np.empty(len(vectors), dtype=np.int32)
        self._codes = np.empty((len(vectors), self._coder.code_size), dtype=np.uint8)
        for start, stop in steps(len(vectors), PORTION):
            self._lists[start:stop], self._codes[start:stop] = self._encoded(
                reduced(vectors, matrix, start, stop)
            )
        self._fill()

    def _coder_of(self, width: int) -> Any:
        self._quantizer = self._faiss.IndexFlatIP(width)
        self._quantizer.add(self._centres)
        return self._empty(self._quantizer, width, len(self._centres))

    def _encoded(self, rows: Vectors) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """The nearest centre of each of these shortened rows, and its code."""
        faiss = self._faiss
        near = faiss.knn(rows, self._centres, 1)[1][:, 0].astype(np.int64)
        codes = np.empty((len(rows), self._coder.code_size), dtype=np.uint8)
        self._coder.encode_vectors(
            len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(near), faiss.swig_ptr(codes)
        )
        return near.astype(np.int32), codes

    def _fill(self) -> None:
        """Packs the codes, list by list."""
        faiss, coder = self._faiss, self._coder
        order = np.argsort(self._lists, kind="stable").astype(np.int64)
        bounds = np.searchsorted(self._lists[order], np.arange(len(self._centres) + 1))
        codes = self._codes[order]
        coder.invlists.reset()
        for number, (start, stop) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
            if start < stop:
                ids, part = order[start:stop], codes[start:stop]
                coder.invlists.add_entries(number, stop - start, faiss.swig_ptr(ids), faiss.swig_ptr(part))
        coder.ntotal = len(order)
        self._index = self._packed(coder)
        coder.invlists.reset()
        coder.ntotal = 0

    def _efforts(self) -> tuple[list[int], float]:
        count = len(self._centres)
        return [2**i for i in range(count.bit_length())], len(self._lists) / count

    def _propose(
        self, queries: Vectors, effort: int, proposals: int, kept: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        faiss = self._faiss
        options = {"nprobe": min(effort, len(self._centres))}
        if kept is None:
            return self._index.search(queries, proposals, params=faiss.SearchParametersIVF(**options))[1]  # type: ignore[no-any-return]
        bits = np.packbits(kept, bitorder="little")
        chosen = faiss.IDSelectorBitmap(bits)
        asked = faiss.SearchParametersIVF(**options, sel=chosen)
        return self._index.search(queries, proposals, params=asked)[1]  # type: ignore[no-any-return]

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {"centres": self._centres, "lists": self._lists, "codes": self._codes, **self._learnt()}

    def _restore(self, folder: Path, n: int, matrix: Vectors) -> None:
        width = len(matrix)
        self._centres = arrays.read(folder, "centres", np.float32, (None, width), most=_MOST_LISTS)
        arrays.check_finite(self._centres)
        self._coder = self._coder_of(width)
        self._relearn(folder, self._coder)
        self._coder.is_trained = True
        self._lists = arrays.read(folder, "lists", np.int32, (n,))
        arrays.check_range(self._lists, 0, len(self._centres))
        self._codes = arrays.read(folder, "codes", np.uint8, (n, self._coder.code_size))
        self._fill()

    def _follow(self, vectors: Vectors | Rows, matrix: Vectors, moved: NDArray[np.int64]) -> None:
        stay = moved >= 0
        lists = np.empty(len(vectors), dtype=np.int32)
        codes = np.empty((len(vectors), self._codes.shape[1]), dtype=np.uint8)
        lists[moved[stay]], codes[moved[stay]] = self._lists[stay], self._codes[stay]
        new = np.ones(len(vectors), dtype=bool)
        new[moved[stay]] = False
        at = np.flatnonzero(new)
        if len(at):
            lists[at], codes[at] = self._encoded(reduced_among(vectors, matrix, at))
        self._lists, self._codes = lists, codes
        self._fill()
