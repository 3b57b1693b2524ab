"""Rank-R1: the model compares many images in words, then names the best; a heap makes an order of it.

Setwise with reasoning. ``votes`` asks several times, under labels that are shuffled and turned around, and
takes the majority, so that a liking for a letter is not a liking for an image. Unlike the released code, a
reply that names none, or a tied vote, leaves first-stage order.

Relevance is the place: the share of the other candidates that an image stands before; those behind the best
``top``, among which nothing is settled, share one value.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from mmrerank.limits import Count, ImageTokens, Repeats, Seed
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank import comparisons
from mmrerank.rerank.relevance import placed
from mmrerank.rerank.schedules import heap_calls, heap_top
from mmrerank.types import Assessment, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("generate",)
FAMILY = "setwise"
PAPER = "Rank-R1 (arXiv 2503.06034)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``children``: images beside the one compared, at least 1. ``top``: how many places are settled.

    ``votes``: times each question is asked, after the first under labels shuffled by ``seed``.
    ``image_tokens`` bounds the visual tokens per image.
    """

    children: Count = 19
    top: Count = 10
    votes: Repeats = 1
    seed: Seed = 0
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
        if self.children < 1 or self.top < 1 or self.votes < 1:
            raise ValueError("children, top and votes must be at least 1")

    def calls(self, k: int) -> int:
        """The most questions for ``k`` candidates."""
        return self.votes * heap_calls(k, self.top, self.children)

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order."""
        return min(k, self.top)


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Chooses and orders; one candidate or none is returned without a question."""
    rng = random.Random(options.seed)
    repairs = Repairs()
    thoughts: dict[str, str] = {}
    seen: set[str] = set()

    def best(places: Sequence[int]) -> Generator[list[Ask], list[Reply], int]:
        nonlocal repairs
        orders = [list(places)] if options.votes % 2 else []
        while len(orders) < options.votes:
            shuffled = rng.sample(places, len(places))
            orders += [shuffled, shuffled[::-1]]
        asks = [
            comparisons.choose(
                query, [ranking.candidates[n] for n in order], image_tokens=options.image_tokens
            )
            for order in orders
        ]
        replies = yield asks
        named: Counter[int] = Counter()
        for ask, reply in zip(asks, replies, strict=True):
            id_, read = comparisons.read_best(reply, ask)
            repairs += read.repairs
            if id_ is not None:
                seen.update(ask.shown)
                named[ranking.ids.index(id_)] += 1
                thoughts.setdefault(id_, read.reason)
        # the earlier place where votes are equal, or nothing is known
        return max(places, key=lambda n: (named[n], -n))

    order = yield from heap_top(len(ranking), options.top, options.children, best)
    after, _ = ranking.reorder(ranking.ids[n] for n in order)
    assessments = {i: Assessment(reason=f"chosen: {why}" if why else "chosen") for i, why in thoughts.items()}
    return Outcome(
        ranking=after,
        explanation=Explanation(
            assessments=assessments,
            reason="the best of many, named after a comparison, again and again",
            relevance={i: p for i, p in placed(after.ids, options.top).items() if i in seen},
        ),
        repairs=repairs,
    )
