"""The order every store must return: exact scores, best first, equal scores by row.

A matrix product rounds differently from one library, block size or position to the next, so that two equal
vectors may get unequal scores. Stores therefore only propose rows, block by block; what is proposed is
scored again here, each row by itself, and sorted. Nothing here is larger than a block, whatever the number of
vectors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmrerank.errors import ImageIndexError
from mmrerank.ports import Rows, Vectors

_BLOCK_BYTES = 8_000_000
"""Of vectors that are compared at once: what does not lie in one piece is copied, this much at a time."""
_BLOCK_ROWS = 8192
"""And no more rows than these, for there is a score of each for each query."""
_COPY_BYTES = 32_000_000
"""The same for FAISS, which keeps no score of every row: a larger piece costs it less."""
QUERIES = 128
"""Queries that are compared with a block at once."""
_SCORED = 1024
"""Rows that are scored exactly at once."""
_TIES = 1024
"""Proposals held for a query beyond twice those wanted. Among more, the exact order decides at once."""


def best(
    query: Vectors, vectors: Vectors | Rows, proposed: NDArray[np.int64], k: int
) -> tuple[Vectors, NDArray[np.int64]]:
    """Scores and rows ``(k,)`` of the best of the ``proposed`` rows, equal scores by row number."""
    every = np.sort(proposed)
    scores, rows = np.zeros(0, dtype=np.float32), every[:0]
    wide_query = query.astype(np.float64)
    for start in range(0, len(every), _SCORED):
        more = every[start : start + _SCORED]
        # Multiplying and summing row by row rounds every row alike, wherever it stands; BLAS does not.
        wide = vectors[more].astype(np.float64)
        wide *= wide_query
        scores = np.concatenate([scores, wide.sum(axis=1).astype(np.float32)])
        rows = np.concatenate([rows, more])
        order = np.argsort(-scores, kind="stable")[:k]  # those from before are of lower rows
        scores, rows = scores[order], rows[order]
    return scores, rows


def refined(
    query: Vectors, vectors: Vectors | Rows, proposed: NDArray[np.int64], k: int
) -> tuple[Vectors, NDArray[np.int64]]:
    """`best`, cheaper where many are proposed: only those that are near in float32 are scored exactly."""
    every = np.sort(proposed)
    if not k < len(every) <= _SCORED:
        return best(query, vectors, every, k)
    rows = vectors[every]
    rough = rows @ query
    longest = float(np.einsum("ij,ij->i", rows, rows).max())
    if not math.isfinite(longest):  # damage, which has to come to light
        return best(query, vectors, every, k)
    margin = rounding(query, math.sqrt(longest))
    near = rough >= below(float(np.partition(rough, -k)[-k]) - 2 * margin)
    wide = rows[near].astype(np.float64)
    wide *= query.astype(np.float64)
    scores = wide.sum(axis=1).astype(np.float32)
    order = np.argsort(-scores, kind="stable")[:k]
    return scores[order], every[near][order]


def rounding(query: Vectors, longest: float) -> float:
    """The bound of the error of a float32 dot product with rows of at most this length, twice."""
    return 2.0 * len(query) * 2.0**-24 * float(np.linalg.norm(query)) * longest


def below(score: float) -> float:
    """The next float32 below a score, which no rounding of it can pass."""
    return float(np.nextafter(np.float32(score), np.float32(-np.inf)))


class Subset:
    """Some rows of ``vectors``, those at ``at`` (ascending), numbered anew: what a filter leaves."""

    def __init__(self, vectors: Vectors | Rows, at: NDArray[np.int64]) -> None:
        self._vectors, self._at = vectors, at
        self.shape = (len(at), vectors.shape[1])

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Vectors:
        return self._vectors[self._at[rows]]

    def pieces(self, step: int) -> list[tuple[int, int]]:
        """Every slice is a copy: pieces of ``step`` rows."""
        return steps(len(self), step)


def steps(rows: int, step: int) -> list[tuple[int, int]]:
    """The first row and the end of pieces of ``step`` rows."""
    return [(start, min(rows, start + step)) for start in range(0, rows, step)]


class Blocks:
    """``vectors`` ``(n, d)`` in pieces, each with the length of its longest row, which is found out once.

    With ``whole`` what lies in one file without gaps is one piece, of any length, and only what has to be
    copied is cut.
    """

    def __init__(self, vectors: Vectors | Rows, *, whole: bool = False) -> None:
        self.vectors = vectors
        width = 4 * max(1, vectors.shape[1])
        if not whole:
            self._pieces = steps(len(vectors), min(_BLOCK_ROWS, max(1, _BLOCK_BYTES // width)))
        elif isinstance(vectors, np.ndarray):
            self._pieces = steps(len(vectors), max(1, len(vectors)))
        else:
            self._pieces = vectors.pieces(max(1, _COPY_BYTES // width))
        self._longest: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self.vectors)

    def __iter__(self) -> Iterator[tuple[int, Vectors, float]]:
        """The first row, the rows, and the length of the longest of each block.

        Raises `ImageIndexError` for a row that is not finite: it would spoil the answers about others.
        """
        for start, stop in self._pieces:
            block = self.vectors[start:stop]
            if start not in self._longest:
                squares = np.einsum("ij,ij->i", block, block)
                if not np.isfinite(squares).all():
                    bad = start + int(np.isfinite(squares).argmin())
                    raise ImageIndexError(
                        f"vector {bad} (from 0, of those in use) is not finite: the index is damaged; index "
                        "the source again with --rebuild"
                    )
                self._longest[start] = math.sqrt(float(squares.max()))
            yield start, block, self._longest[start]


@dataclass(eq=False)
class Proposals:
    """The rows that may be among the ``k`` nearest of one query ``(d,)``.

    A row's true score lies within `margin` of any float32 score of it. ``floor`` is below the true score of
    the ``k``-th best row so far.
    """

    query: Vectors
    vectors: Vectors | Rows
    k: int
    floor: float = -math.inf
    _rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _low: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    _high: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        self._length = float(np.linalg.norm(self.query))

    def margin(self, longest: float) -> float:
        """The bound of a float32 dot product with rows of at most this length, twice."""
        return 2.0 * len(self.query) * 2.0**-24 * self._length * longest

    def least(self, longest: float) -> float:
        """Rows of at most this length with a lower float32 score cannot be among the nearest."""
        return below(self.floor - self.margin(longest))

    def add(self, rows: NDArray[np.int64], scores: Vectors, longest: float) -> None:
        """Takes rows of a block, behind all that were taken before, with their float32 scores."""
        margin, wide = self.margin(longest), scores.astype(np.float64)
        self._rows = np.concatenate([self._rows, rows])
        self._low = np.concatenate([self._low, wide - margin])
        self._high = np.concatenate([self._high, wide + margin])
        self._prune()
        if len(self._rows) > 2 * self.k + _TIES:
            exact, self._rows = best(self.query, self.vectors, self._rows, self.k)
            # the margin of the longest so far covers the rounding of each
            widest = float((self._high - self._low).max()) / 2
            centre = exact.astype(np.float64)
            self._low, self._high = centre - widest, centre + widest
            self._prune()

    def _prune(self) -> None:
        if len(self._low) >= self.k:
            at = len(self._low) - self.k
            self.floor = max(self.floor, float(np.partition(self._low, at)[at]))
            keep = self._high >= self.floor
            self._rows, self._low, self._high = self._rows[keep], self._low[keep], self._high[keep]

    def nearest(self) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and rows ``(k,)``, best first."""
        return best(self.query, self.vectors, self._rows, self.k)
