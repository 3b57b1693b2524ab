"""Pairwise ranking prompting: which of two images fits better, asked in both orders.

The preference is P(A) of both orders averaged, so that a model that only likes a position says nothing.
``allpairs`` ranks by the mean preference over all pairs, ``sliding`` lets the best bubble up ``top`` times,
``heap`` sorts the best ``top`` out of a binary heap. A pair whose judgement failed keeps first-stage order.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import exp
from typing import Literal

from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Judging, Outcome
from mmrerank.rerank import comparisons
from mmrerank.rerank.aggregate import by_value
from mmrerank.rerank.schedule import bubble_top, heap_calls, heap_top
from mmrerank.types import Assessment, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("choice_logprobs",)
FAMILY = "pairwise"
PAPER = "PRP (arXiv 2306.17563)"


@dataclass(frozen=True, kw_only=True)
class Options:
    """``schedule``: which pairs are asked. ``top``: how many places ``sliding`` and ``heap`` settle.

    ``image_tokens`` bounds the visual tokens per image.
    """

    schedule: Literal["allpairs", "sliding", "heap"] = "sliding"
    top: int = 10
    image_tokens: int = 256

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError("top must be at least 1")


def calls(k: int, options: Options) -> int:
    """Questions for ``k`` candidates; an upper bound for ``heap``."""
    if options.schedule == "allpairs":
        return k * (k - 1)
    if options.schedule == "sliding":
        return 2 * sum(k - 1 - n for n in range(min(options.top, k - 1)))
    return 4 * heap_calls(k, options.top, 2)


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Compares and orders; one candidate or none is returned without a question."""
    images, k = ranking.candidates, len(ranking)
    failed = 0

    def preferences(
        pairs: Sequence[tuple[int, int]],
    ) -> Generator[list[Ask], list[Reply], list[float | None]]:
        """For each pair P(first is better), both orders averaged over what was answered."""
        nonlocal failed
        asks = [
            comparisons.prefer(query, images[a], images[b], image_tokens=options.image_tokens)
            for one, other in pairs
            for a, b in ((one, other), (other, one))
        ]
        replies = yield asks
        read = [comparisons.read_letters(r, a) for a, r in zip(asks, replies, strict=True)]
        found: list[float | None] = []
        for n, (one, _) in enumerate(pairs):
            both = [exp(r[images[one].id]) for r in read[2 * n : 2 * n + 2] if r]
            failed += 2 - len(both)
            found.append(sum(both) / len(both) if both else None)
        return found

    def best(places: Sequence[int]) -> Generator[list[Ask], list[Reply], int]:
        winner = places[0]
        for other in places[1:]:
            (p,) = yield from preferences([(winner, other)])
            winner = other if p is not None and p < 0.5 else winner
        return winner

    told: dict[str, Assessment] = {}
    if k < 2:
        order = list(range(k))
    elif options.schedule == "allpairs":
        pairs = list(combinations(range(k), 2))
        found = yield from preferences(pairs)
        won: dict[int, list[float]] = {n: [] for n in range(k)}
        for (one, other), p in zip(pairs, found, strict=True):
            if p is not None:
                won[one].append(p)
                won[other].append(1 - p)
        # equal means must not differ by the order in which they were added up
        values = {images[n].id: round(sum(v) / len(v), 9) for n, v in won.items() if v}
        ids = by_value(ranking.ids, values)
        told = {
            i: Assessment(reason=f"preferred in {v:.0%} of its pairs") for i, v in values.items()
        }
        order = [ranking.ids.index(i) for i in ids]
    elif options.schedule == "sliding":
        order = yield from bubble_top(k, options.top, best)
    else:
        order = yield from heap_top(k, options.top, 2, best)
    after, _ = ranking.reorder(ranking.ids[n] for n in order)
    return Outcome(
        ranking=after,
        explanation=Explanation(
            assessments=told, reason=f"ordered by pairwise preferences ({options.schedule})"
        ),
        repairs=Repairs(failed=failed),
    )
