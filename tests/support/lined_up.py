"""An embedder that puts words and pictures where a test wants them: on axes of one space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmrerank.images import decode
from mmrerank.ports import Embedder, Vectors
from mmrerank.types import Query

AXES = ("red", "green", "blue")


class LinedUp(Embedder):
    """The mean colour of a picture; a word is the axis that it names, and several words are their sum."""

    spec, fingerprint, dim = "test:lined-up", "lined-up-1", 3

    def __init__(self) -> None:
        self.asked: list[Query] = []

    def embed_images(self, images: Sequence[Any]) -> Vectors:
        means = np.stack([np.asarray(i.convert("RGB"), dtype=np.float64).mean(axis=(0, 1)) for i in images])
        return _unit(means + 1)

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        self.asked += queries
        return np.concatenate([self._one(q) for q in queries])

    def _one(self, query: Query) -> Vectors:
        assert not query.terms
        if query.images:
            return self.embed_images([decode(i) for i in query.images])[:1]
        return _unit(np.array([[float(a in query.words.split()) for a in AXES]]))


def _unit(rows: Any) -> Vectors:
    found: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return found
