"""Colours: the mean colour of an image; words are the colours they name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmrerank.ports import Embedder, Vectors
from mmrerank.types import Query

FORM = "colours:"
NAMED = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}


class Colours(Embedder):
    """Vectors of three numbers and a little."""

    spec = "colours:"
    fingerprint = "colours 1"
    dim = 4

    def embed_images(self, images: Sequence[Any]) -> Vectors:
        """The mean colour of each, ``(n, 4)``."""
        return self._unit([np.asarray(i, np.float32).mean((0, 1)) / 255 for i in images])

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        """The mean of the colours that the words name."""
        rows = []
        for query in queries:
            named = [NAMED[w] for w in query.words.lower().split() if w in NAMED]
            rows.append(np.mean(named or [(1, 1, 1)], axis=0))
        return self._unit(rows)

    def _unit(self, rows: Sequence[Any]) -> Vectors:
        table = np.full((len(rows), self.dim), 0.1, np.float32)
        if len(rows):
            table[:, :3] = np.stack(rows)
        return table / np.linalg.norm(table, axis=1, keepdims=True).astype(np.float32)


def open(rest: str) -> Colours:
    """``colours:``."""
    return Colours()
