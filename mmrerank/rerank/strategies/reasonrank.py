"""ReasonRank: the model reasons at length, then orders; windows of 20 slide by 10.

`listwise` with thoughts before the order, under the name researchers look for. The thoughts are a part of the
reply of their own, so that numbers in them are never read as a ranking. Relevance as in `listwise`.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmrerank.limits import Count, ImageTokens, Thoughts
from mmrerank.ports import Capability, Judging, StrategyOptions
from mmrerank.rerank import judgements
from mmrerank.rerank.strategies import listwise
from mmrerank.types import Query, Ranking

NEEDS: tuple[Capability, ...] = ("generate",)
FAMILY = "listwise"
PAPER = "ReasonRank (arXiv 2508.07050)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``window`` images stand in one question and the next starts ``step`` places nearer the head.

    ``think`` is how many tokens of thoughts may stand before an order (about 3072 in the paper).
    ``image_tokens`` bounds the visual tokens per image.
    """

    window: Count = 20
    step: Count = 10
    think: Thoughts = judgements.THOUGHT
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
        _listwise(self)

    def calls(self, k: int) -> int:
        """Questions for ``k`` candidates; thoughts that find no end are asked for once more."""
        return _listwise(self).calls(k)

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order."""
        return _listwise(self).settles(k)


def _listwise(options: Options) -> listwise.Options:
    return listwise.Options(
        window=options.window, step=options.step, think=options.think, image_tokens=options.image_tokens
    )


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Orders window by window, thinking."""
    return (yield from listwise.rank(query, ranking, _listwise(options)))
