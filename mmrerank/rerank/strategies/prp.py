"""Pairwise ranking prompting: which of two images fits better, asked in both orders.

``allpairs`` ranks by the mean preference over all pairs, ``sliding`` lets the best bubble up ``top`` times,
``heap`` sorts the best ``top`` out of a binary heap. A pair whose judgement failed keeps first-stage order.

Relevance is the mean preference over all pairs; with ``sliding`` and ``heap`` the place: the share of the
other candidates that an image stands before, and one value for all that stand behind the best ``top``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from mmrerank.limits import Count, ImageTokens
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank.aggregate import by_value, mean_preference
from mmrerank.rerank.pairs import Pairs
from mmrerank.rerank.relevance import Numbers, numbers, placed
from mmrerank.rerank.schedules import bubble_top, heap_calls, heap_top
from mmrerank.types import Assessment, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("choice_logprobs",)
FAMILY = "pairwise"
PAPER = "PRP (arXiv 2306.17563)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``schedule``: which pairs are asked. ``top``: how many places ``sliding`` and ``heap`` settle.

    ``read``: the letters' log-probabilities, or the letter that is written (for servers without them).
    ``image_tokens`` bounds the visual tokens per image.
    """

    schedule: Literal["allpairs", "sliding", "heap"] = "sliding"
    top: Count = 10
    read: Literal["logprobs", "written"] = "logprobs"
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError("top must be at least 1")

    def needs(self) -> tuple[Capability, ...]:
        """A written letter is generated."""
        return NEEDS if self.read == "logprobs" else ("generate",)

    def calls(self, k: int) -> int:
        """Questions for ``k`` candidates; an upper bound for ``heap``."""
        if self.schedule == "allpairs":
            return k * (k - 1)
        if self.schedule == "sliding":
            return 2 * sum(k - 1 - n for n in range(min(self.top, k - 1)))
        return 4 * heap_calls(k, self.top, 2)

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order."""
        return k if self.schedule == "allpairs" else min(k, self.top)


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Compares and orders; one candidate or none is returned without a question."""
    k = len(ranking)
    if k < 2:
        return Outcome(ranking=ranking)
    pairs = Pairs(
        query, ranking.candidates, written=options.read == "written", image_tokens=options.image_tokens
    )
    assessments: dict[str, Assessment] = {}
    told: Numbers
    if options.schedule == "allpairs":
        p = yield from pairs.matrix(k, list(combinations(range(k), 2)))
        means = zip(ranking.ids, mean_preference(p), strict=True)
        values = {i: round(v, 9) for i, v in means if v is not None}
        assessments = {i: Assessment(reason=f"preferred in {v:.0%} of its pairs") for i, v in values.items()}
        after, _ = ranking.reorder(by_value(ranking.ids, values))
        told = numbers(after.ids, values)
    else:
        if options.schedule == "sliding":
            order = yield from bubble_top(k, options.top, pairs.best)
        else:
            order = yield from heap_top(k, options.top, 2, pairs.best)
        after, _ = ranking.reorder(ranking.ids[n] for n in order)
        places = placed(after.ids, options.top)
        told = {"scores": {}, "relevance": {i: p for i, p in places.items() if i in pairs.compared}}
    return Outcome(
        ranking=after,
        explanation=Explanation(
            assessments=assessments, reason=f"ordered by pairwise preferences ({options.schedule})", **told
        ),
        repairs=Repairs(failed=pairs.failed),
    )
