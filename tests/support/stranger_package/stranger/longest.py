"""Longest: a reranker that likes long texts, and of pictures the large ones."""

from __future__ import annotations

from collections.abc import Sequence

from mmrerank.errors import ImageError
from mmrerank.images import decode
from mmrerank.ports import Scorer
from mmrerank.types import Candidate, Query

FORM = "longest:SCALE"


class Longest(Scorer):
    """Needs `score` and nothing else."""

    def __init__(self, scale: float) -> None:
        self.spec, self.scale = f"longest:{scale:g}", scale

    def score(self, query: Query, candidates: Sequence[Candidate], instruction: str = "") -> Sequence[float]:
        """From 0 to 1, more for more of it."""
        return [self._one(c) for c in candidates]

    def _one(self, candidate: Candidate) -> float:
        if candidate.image is None:
            amount = len(candidate.text or "")
        else:
            try:
                width, height = decode(candidate.image).size
            except ImageError:
                return float("nan")
            amount = width * height
        return amount / (amount + self.scale)


def open(rest: str) -> Longest:
    """``SCALE`` is what has half of the score (default: 100)."""
    return Longest(float(rest or 100))
