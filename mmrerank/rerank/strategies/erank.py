"""ERank: reason about one image, then give it a digit, weighted by how probable that digit is.

``read=expected`` is the mean of all digits under their probabilities, ``top`` the likeliest digit times its
probability. Marks are 0 to 9: on Qwen's vocabulary 10 would begin like 1. Without ``think``, the
digit is read at once. Relevance is the mark's share of 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmrerank.limits import ImageTokens
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Judging, StrategyOptions
from mmrerank.rerank import comparisons
from mmrerank.rerank.onebyone import calls_one_by_one, one_by_one
from mmrerank.rerank.relevance import out_of
from mmrerank.types import Candidate, Query, Ranking

NEEDS: tuple[Capability, ...] = ("generate", "choice_logprobs")
FAMILY = "pointwise"
PAPER = "ERank (arXiv 2509.00520)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``think``: whether the model reasons first. ``read``: which number the digits' probabilities make.

    ``image_tokens`` bounds the visual tokens per image.
    """

    think: bool = True
    read: Literal["expected", "top"] = "expected"
    image_tokens: ImageTokens = 256

    def needs(self) -> tuple[Capability, ...]:
        """Without thoughts nothing is written."""
        return NEEDS if self.think else ("choice_logprobs",)

    def calls(self, k: int) -> int:
        """The most questions for ``k`` candidates; an upper bound with pruning or early exit."""
        return calls_one_by_one(k)


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Marks every candidate on its own, all in one round."""

    def ask(candidate: Candidate) -> Ask:
        question = comparisons.mark(query, candidate, image_tokens=options.image_tokens)
        return comparisons.thinking(question, options.think)

    def read(reply: Reply) -> float | None:
        value = comparisons.read_mark(reply, options.read)
        return None if value is None else round(value, 9)

    return (
        yield from one_by_one(
            ranking,
            ask=ask,
            read=read,
            tell=lambda v: f"mark {v:.2f} of 9",
            reason="ordered by marks weighted with their probability",
            relevance=out_of(9),
        )
    )
