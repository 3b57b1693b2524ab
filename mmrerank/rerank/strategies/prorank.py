"""ProRank: a binary task answered 1 or 0, ordered by how sure the model is of its answer.

The paper's two steps, a verdict and a finer score, are one number here: log P(1) - log P(0). Its sign is the
verdict. Ordering by it puts all that the verdict lets through before the rest, so that the verdict as a gate
changes no order. Relevance is the sigmoid of the margin: a threshold of 0.5 keeps what the verdict lets
through.
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
    """Log P(1) - log P(0): its sign is the verdict, its size the finer score."""
    return comparisons.read_margin(reply, comparisons.ONE_ZERO)


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Asks about every candidate on its own, all in one round."""
    return (
        yield from one_by_one(
            ranking,
            ask=lambda c: comparisons.relevance(query, c, image_tokens=options.image_tokens),
            read=margin,
            tell=lambda v: f"{'relevant' if v > 0 else 'not relevant'} (margin {v:+.2f})",
            reason="ordered by the margin of 1 over 0",
            relevance=chance,
        )
    )
