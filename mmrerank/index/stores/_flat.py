"""How a flat search of FAISS proposes rows, on the CPU or a GPU: more than are wanted, and every tie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrerank.errors import MissingExtraError
from mmrerank.index.stores._order import Proposals, below
from mmrerank.ports import Vectors

SPARE = 32
"""Rows asked for beyond those wanted, so that ties at the edge rarely take a second look."""


def library(store: str) -> Any:
    """The module of FAISS. Raises `MissingExtraError`."""
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError(
            f'the store "{store}" needs FAISS: pip install "mmrerank[cpu]" (or "mmrerank[gpu]"); '
            'the store "exact" needs nothing'
        ) from error
    return faiss


def take(
    found: Sequence[Proposals],
    answer: tuple[Vectors, NDArray[np.int64]],
    first: int,
    block: Vectors,
    longest: float,
) -> None:
    """Takes what FAISS has ``answer``-ed about a ``block`` that begins at row ``first``: rough scores and
    places ``(q, count)``, of the queries of ``found``.
    """
    (rough, places), wanted = answer, found[0].k
    count = rough.shape[1]
    for i, one in enumerate(found):
        least = one.least(longest)
        if wanted <= len(block):
            edge = float(rough[i, wanted - 1]) - 2 * one.margin(longest)
            least = max(least, below(edge))
        near = rough[i] >= least
        at, near_scores = places[i][near], rough[i][near]
        if len(at) == count < len(block):  # equal scores may go on behind the last that FAISS gave
            every = block @ one.query
            at = np.flatnonzero(every >= least)
            near_scores = every[at]
        if len(at):
            one.add(at + first, near_scores, longest)


def nearest(found: Sequence[Proposals]) -> tuple[Vectors, NDArray[np.int64]]:
    """Scores and rows ``(q, k)`` of all of ``found``."""
    each = [one.nearest() for one in found]
    return np.stack([scores for scores, _ in each]), np.stack([rows for _, rows in each])
