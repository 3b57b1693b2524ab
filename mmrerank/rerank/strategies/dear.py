"""DeAR: every image scored on its own, then the best of them ordered together by reasoning.

`cascade` of `pointwise` and `reasonrank`. The released second stage forbids the steps it asks for and leaves
short lists and leftover heads alone; here thoughts have a field of their own and windows reach the head.
Relevance is that of `reasonrank` for the best, and P(yes) for the rest, never above the least of the best.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmrerank.limits import Count
from mmrerank.ports import Capability, Judging, StrategyOptions
from mmrerank.rerank.strategies import cascade
from mmrerank.types import Query, Ranking

NEEDS: tuple[Capability, ...] = ("choice_logprobs", "generate")
FAMILY = "cascade"
PAPER = "DeAR (arXiv 2508.16998)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``keep``: how many of the best are ordered together."""

    keep: Count = 20

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError("keep must be at least 1")

    def calls(self, k: int) -> int | None:
        """Questions for ``k`` candidates: one each, and one for every window of the best."""
        return _cascade(self).calls(k)

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order."""
        return _cascade(self).settles(k)


def _cascade(options: Options) -> cascade.Options:
    return cascade.Options(first="pointwise", then="reasonrank", keep=options.keep)


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Scores, then orders."""
    return (yield from cascade.rank(query, ranking, _cascade(options)))
