"""Exact search in NumPy, block by block: what ``exact`` is, and what other stores fall back on.

A filter is applied first. Where it leaves few rows these are gathered; where it leaves many, whole blocks are
compared and the other rows are dropped, for a copy would cost more than the comparison.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mmrerank.index.stores._order import QUERIES, Blocks, Proposals, Subset
from mmrerank.ports import Vectors

_MANY = 0.25
"""The share of rows from which on whole blocks are compared."""


def scan(
    blocks: Blocks, queries: Vectors, k: int, among: NDArray[np.int64] | None = None
) -> tuple[Vectors, NDArray[np.int64]]:
    """Scores and row numbers ``(q, min(k, n))``, best first, equal scores by row number; as `VectorStore`."""
    if among is not None and len(among) < _MANY * len(blocks):
        scores, rows = scan(Blocks(Subset(blocks.vectors, among)), queries, k)
        return scores, among[rows]
    k = min(k, len(blocks) if among is None else len(among))
    scores = np.zeros((len(queries), k), dtype=np.float32)
    rows = np.zeros((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries) if k else 0, QUERIES):
        part = np.asarray(queries[start : start + QUERIES], dtype=np.float32)
        found = [Proposals(query, blocks.vectors, k) for query in part]
        for first, block, longest, kept in _masked(blocks, among):
            rough = part @ block.T
            if kept is not None:
                rough = rough[:, kept]
            near = rough >= np.array([f.least(longest) for f in found], dtype=np.float32)[:, None]
            for i in np.flatnonzero(near.any(axis=1)):
                at = np.flatnonzero(near[i])
                found[i].add((at if kept is None else kept[at]) + first, rough[i, at], longest)
        for number, one in enumerate(found, start):
            scores[number], rows[number] = one.nearest()
    return scores, rows


def _masked(
    blocks: Blocks, among: NDArray[np.int64] | None
) -> Iterator[tuple[int, Vectors, float, NDArray[np.int64] | None]]:
    """The blocks, each with the places in it that a filter leaves; those of which it leaves none left out."""
    for first, block, longest in blocks:
        if among is None:
            yield first, block, longest, None
            continue
        low, high = np.searchsorted(among, [first, first + len(block)])
        if low < high:
            yield first, block, longest, among[low:high] - first
