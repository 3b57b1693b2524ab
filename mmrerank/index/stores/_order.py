"""The order every store must return: exact scores, best first, equal scores by row.

A matrix product rounds differently from one library, block size or position to the next, so that two equal
vectors may get unequal scores. Stores therefore only propose rows; what is proposed is scored again here,
each row by itself, and sorted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmrerank.errors import ImageIndexError
from mmrerank.ports import Vectors

_BLOCK_ROWS = 65_536


def slack(query: Vectors, longest: float) -> float:
    """How far two float32 scores of ``query`` ``(d,)`` may lie apart and still be equal in truth.

    The bound of a float32 dot product on both sides; ``longest`` is the length of the longest row.
    """
    return 4.0 * len(query) * 2.0**-24 * float(np.linalg.norm(query)) * longest


def best(
    query: Vectors, vectors: Vectors, proposed: NDArray[np.int64], k: int
) -> tuple[Vectors, NDArray[np.int64]]:
    """Scores and rows ``(k,)`` of the best of the ``proposed`` rows, equal scores by row number."""
    rows = np.sort(proposed)
    # Multiplying and summing row by row rounds every row alike, wherever it stands; BLAS does not.
    wide = vectors[rows].astype(np.float64) * query.astype(np.float64)
    scores = wide.sum(axis=1).astype(np.float32)
    order = np.argsort(-scores, kind="stable")[:k]
    return scores[order], rows[order]


def longest(vectors: Vectors) -> float:
    """The length of the longest row. Raises `ImageIndexError` for a row that is not finite: it would spoil
    the answers about others.
    """
    most = 0.0
    for start in range(0, len(vectors), _BLOCK_ROWS):
        lengths = np.linalg.norm(vectors[start : start + _BLOCK_ROWS], axis=1)
        if not np.isfinite(lengths).all():
            raise ImageIndexError(
                f"vector {start + int(np.isfinite(lengths).argmin())} (from 0, of those in use) is not "
                "finite: the index is damaged; index the source again with --rebuild"
            )
        most = max(most, float(lengths.max()))
    return most
