"""What a second pass over the reversed list wins back, for a judge that likes early places.

    python bench/two_passes.py

No model is asked. Each of 200 lists has twenty images of worth 0 to 3 in random order. The judge gives an
image 20 points for each step of worth, some noise, and so many points for each place that it stands before
others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmrerank.messages import Ask, Reply
from mmrerank.ports import Chat
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Query

LISTS, IMAGES, NOISE = 200, 20, 6.0
LIKINGS = (0.0, 0.5, 1.0, 2.0)
"""Points for each place that an image stands further to the front."""


class Judge(Chat):
    """Scores by worth, noise and place; the noise is an image's own, the same in both passes."""

    spec, capabilities = "judge", frozenset({"generate"})

    def __init__(self, worth: Sequence[int], noise: Sequence[float], liking: float) -> None:
        self.worth, self.noise, self.liking = worth, noise, liking

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        """Scores of every label."""
        return [Reply(text=json.dumps({"reason": "", "scores": self._scores(a)})) for a in asks]

    def _scores(self, ask: Ask) -> dict[str, int]:
        found = {}
        for place, (label, id_) in enumerate(zip(ask.labels, ask.shown, strict=True)):
            points = 20 * self.worth[int(id_)] + self.noise[int(id_)]
            found[label] = round(min(max(points + self.liking * (IMAGES - 1 - place), 0), 99))
        return found


def ndcg(order: Sequence[str], worth: Sequence[int], k: int = 10) -> float:
    """The nDCG at ``k`` with the gains 0, 1, 3, 7."""
    gains = [2 ** worth[int(i)] - 1 for i in order]

    def total(row: Sequence[float]) -> float:
        return sum(g / math.log2(n + 2) for n, g in enumerate(row[:k]))

    return total(gains) / (total(sorted(gains, reverse=True)) or 1.0)


def figures(liking: float) -> tuple[float, float]:
    """Mean nDCG@10 of one pass and of two."""
    rng = np.random.default_rng(0)
    images = [Candidate(id=str(n), text=f"image {n}") for n in range(IMAGES)]
    options: dict[str, Any] = {"deconstruct": False, "evaluate": False}
    values = []
    for _ in range(LISTS):
        worth = rng.choice(4, IMAGES, p=[0.5, 0.25, 0.15, 0.1]).tolist()
        judge = Judge(worth, rng.normal(0, NOISE, IMAGES).tolist(), liking)
        orders = [
            [h.id for h in Reranker("cotrr", judge, options=options, passes=p).rank(Query(text="x"), images)]
            for p in (1, 2)
        ]
        values.append([ndcg(o, worth) for o in orders])
    one, two = np.mean(values, 0)
    return float(one), float(two)


if __name__ == "__main__":
    for points in LIKINGS:
        one, two = figures(points)
        print(f"{points:.1f} points a place: one pass {one:.3f}, two passes {two:.3f}")
