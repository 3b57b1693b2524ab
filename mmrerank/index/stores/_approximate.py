"""What approximate stores have in common: they propose rows from shortened vectors, and score them exactly.

The true vectors stay on the disk. What is proposed is scored with them, so that scores and their order are
those of the exact stores; only a row that is not proposed can be missing. Few rows are all compared: below
`LEAST` nothing is built, and a filter that leaves at most `COMPARED` rows is searched exactly.

Nothing that a library of others has written is read: the saved files are arrays of numbers, whose shapes and
ranges are checked, for an index may come from elsewhere.
"""

from __future__ import annotations

import abc
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mmrerank.index import arrays
from mmrerank.index.stores import _reduced, _tuned
from mmrerank.index.stores._order import Blocks, best
from mmrerank.index.stores._scan import scan
from mmrerank.index.stores._tuned import Setting
from mmrerank.ports import Rows, Vectors, VectorStore

LEAST = 10_000
"""Below this number of rows they are all compared: that takes some milliseconds."""
COMPARED = 20_000
"""A filter that leaves no more rows than this is searched exactly."""
_GROWN = 1.5
"""A view of more than so many times the rows that it was made of is made anew: its lists fit no more."""
_SETTINGS = "settings.json"
_PORTION = 1024
"""Queries that are looked up at once."""


class ApproximateStore(VectorStore, abc.ABC):
    """Proposes rows and scores them exactly. See the module for what is searched exactly after all."""

    maps = True
    exact = False
    _apart: ClassVar[bool] = True
    """Whether the number of proposals is chosen apart from the effort."""

    def __init__(self, faiss: Any) -> None:
        self._faiss = faiss
        self._vectors: Vectors | Rows = np.zeros((0, 0), dtype=np.float32)
        self._blocks = Blocks(self._vectors)
        self._matrix: Vectors | None = None
        self._settings: tuple[Setting, ...] = ()
        self._made_of = 0

    # What a store of this kind does

    @abc.abstractmethod
    def _make(self, vectors: Vectors | Rows, matrix: Vectors) -> None:
        """Builds from all ``vectors`` ``(n, d)``, made shorter by ``matrix`` ``(r, d)``."""

    @abc.abstractmethod
    def _propose(
        self, queries: Vectors, effort: int, proposals: int, kept: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """Row numbers ``(q, proposals)``, -1 where there are no more, of shortened queries ``(q, r)``. With
        ``kept`` ``(n,)`` only rows for which it is true.
        """

    @abc.abstractmethod
    def _efforts(self) -> tuple[list[int], float]:
        """The efforts to try, ascending, and how many rows one of them looks at."""

    @abc.abstractmethod
    def _arrays(self) -> dict[str, NDArray[Any]]:
        """What is saved, by name."""

    @abc.abstractmethod
    def _restore(self, folder: Path, n: int, matrix: Vectors) -> None:
        """Takes what `_arrays` gave. Raises `ValueError` for what it cannot have given."""

    @abc.abstractmethod
    def _follow(self, vectors: Vectors | Rows, matrix: Vectors, moved: NDArray[np.int64]) -> None:
        """`update`, where rows are still alike enough."""

    # What all do alike

    def build(self, vectors: Vectors | Rows) -> None:
        """Replaces the contents by ``vectors`` ``(n, dim)``, and measures how far it has to look."""
        self._take(vectors)
        self._matrix, self._settings, self._made_of = None, (), len(vectors)
        if len(vectors) < LEAST:
            return
        matrix = _reduced.fit(vectors)
        self._make(vectors, matrix)
        self._matrix = matrix
        efforts, rows_an_effort = self._efforts()

        def propose(queries: Vectors, effort: int, count: int) -> NDArray[np.int64]:
            return self._looked(queries, effort, count, None)

        self._settings = _tuned.tune(vectors, propose, efforts, rows_an_effort, apart=self._apart)

    def _take(self, vectors: Vectors | Rows) -> None:
        self._vectors, self._blocks = vectors, Blocks(vectors)

    def search(
        self, queries: Vectors, k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and row numbers ``(q, min(k, n))``, best first; equal scores by row number.

        Few rows are all compared: with ``among`` of at most `COMPARED` rows, for more results than a quarter
        of the rows, and for a query to which fewer rows than ``k`` were proposed.
        """
        n = len(self._blocks) if among is None else len(among)
        k = min(k, n)
        few = among is not None and n <= COMPARED
        if self._matrix is None or few or 4 * k > n or not len(queries):
            return scan(self._blocks, queries, k, among)
        kept = None
        if among is not None:
            kept = np.zeros(len(self._blocks), dtype=bool)
            kept[among] = True
        wide = np.ascontiguousarray(queries, dtype=np.float32)
        setting = self._setting(k, n)
        scores = np.zeros((len(wide), k), dtype=np.float32)
        rows = np.zeros((len(wide), k), dtype=np.int64)
        short = []  # queries to which too few rows were proposed
        for start in range(0, len(wide), _PORTION):
            part = wide[start : start + _PORTION]
            proposed = self._looked(part, setting.effort, setting.proposals, kept)
            for i, (query, found) in enumerate(zip(part, proposed, strict=True), start):
                real = found[found >= 0]
                if len(real) < k:
                    short.append(i)
                else:
                    scores[i], rows[i] = best(query, self._vectors, real, k)
        if short:
            scores[short], rows[short] = scan(self._blocks, wide[short], k, among)
        return scores, rows

    def _setting(self, k: int, n: int) -> Setting:
        """For ``k`` results out of ``n`` rows that a filter leaves: it looks as much further as they are
        thinner.
        """
        near = next((s for s in self._settings if s.k >= k), self._settings[-1]).for_more(k)
        thin = len(self._blocks) / n
        most = self._efforts()[0][-1]
        return Setting(
            k=k,
            effort=min(most, round(near.effort * thin)),
            proposals=min(n, near.proposals),
            recall=near.recall,
        )

    def _looked(
        self, queries: Vectors, effort: int, proposals: int, kept: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        assert self._matrix is not None
        return self._propose(np.ascontiguousarray(queries @ self._matrix.T), effort, proposals, kept)

    def facts(self) -> dict[str, Any]:
        """The settings, with the recall that was measured on queries between the rows when it was built."""
        if self._matrix is None:
            return {"compares": f"every row, for there are fewer than {LEAST:,}"}
        return {
            "rows_when_made": self._made_of,
            "numbers_compared": len(self._matrix),
            **{f"recall@{s.k}": s.recall for s in self._settings},
            "settings": _tuned.as_json(self._settings),
        }

    def save(self, folder: Path) -> None:
        """Arrays, and the settings; those alone where every row is compared. Raises `OSError`."""
        folder.mkdir(parents=True, exist_ok=True)
        if self._matrix is not None:
            for name, array in {"matrix": self._matrix, **self._arrays()}.items():
                arrays.write(folder, name, array)
        body = {"made_of": self._made_of, "settings": _tuned.as_json(self._settings)}
        (folder / _SETTINGS).write_text(json.dumps(body), encoding="utf-8")

    def load(self, folder: Path, vectors: Vectors | Rows) -> bool:
        """Takes what `save` left of as many ``vectors``. Every number in it is checked."""
        n, d = vectors.shape
        self._matrix, self._settings = None, ()
        try:
            if n < LEAST:
                self._take(vectors)
                self._made_of = arrays.settings(folder / _SETTINGS)["made_of"]
                return self._made_of == n
            matrix = arrays.read(folder, "matrix", np.float32, (None, d), most=_reduced.MOST)
            arrays.check_finite(matrix)
            body = arrays.settings(folder / _SETTINGS)
            self._settings = _tuned.parsed(body["settings"], 2 * n)
            self._made_of = body["made_of"]
            self._restore(folder, n, matrix)
        except (OSError, ValueError):
            return False  # made again
        self._take(vectors)
        self._matrix = matrix
        return True

    def update(self, vectors: Vectors | Rows, moved: NDArray[np.int64]) -> bool:
        """Takes new rows and lets others go, as the lists or the graph are. False after much growth."""
        stay = int(np.count_nonzero(moved >= 0))
        fits = LEAST <= len(vectors) <= _GROWN * self._made_of and stay > self._made_of / _GROWN
        if self._matrix is None or not fits:
            return False
        self._follow(vectors, self._matrix, moved)
        self._take(vectors)
        return True
