"""ProRank: a binary verdict first, and how sure the model is of it as the finer score.

The prompt is a binary task answered 1 or 0. The verdict is a gate: what it lets through stands before what it
does not; within both, the margin of the two answers orders. Relevance is the sigmoid of the margin.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmrerank.limits import ImageTokens
from mmrerank.messages import Reply
from mmrerank.ports import Capability, Judging, StrategyOptions
from mmrerank.rerank import comparisons
from mmrerank.rerank.onebyone import calls_one_by_one, one_by_one
from mmrerank.rerank.relevance import chance
from mmrerank.types import Query, Ranking

NEEDS: tuple[Capability, ...] = ("choice_logprobs",)
FAMILY = "pointwise"
PAPER = "ProRank (arXiv 2506.03487)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``image_tokens`` bounds the visual tokens per image."""

    image_tokens: ImageTokens = 256

    def calls(self, k: int) -> int:
        """The most questions for ``k`` candidates; an upper bound with pruning or early exit."""
        return calls_one_by_one(k)


def margin(reply: Reply) -> float | None:
    """Log P(1) - log P(0): its sign is the gate, its size the finer score."""
    return comparisons.read_margin(reply, comparisons.ONE_ZERO)


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Asks about every candidate on its own, all in one round."""
    return (
        yield from one_by_one(
            ranking,
            ask=lambda c: comparisons.relevance(query, c, image_tokens=options.image_tokens),
            read=margin,
            tell=lambda v: f"{'relevant' if v > 0 else 'not relevant'} (margin {v:+.2f})",
            reason="relevant images first, each side by the margin of 1 over 0",
            relevance=chance,
        )
    )
