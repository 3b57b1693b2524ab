"""Pointwise: "does this image show everything?", one question per image, ordered by the yes/no margin.

log P(yes) - log P(no) of the next token, as INQUIRE's reranking baseline and the SFT head of "SFT or CL"
(GMR) score; ``formula=yes`` is its contrastive head, log P(yes) alone. An image whose judgement failed keeps
its first-stage rank. ``alpha`` and ``beta`` leave out calls (`mmrerank.rerank.thrift`).

Relevance is P(yes) among yes and no; with ``formula=yes`` P(yes) among all that the model might say. With
``weight`` below 1 it is the mixed number, which says how a candidate stands among these and nothing more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mmrerank.limits import Count, ImageTokens, Share, UpTo
from mmrerank.messages import Ask
from mmrerank.ports import Capability, Judging, StrategyOptions
from mmrerank.rerank import comparisons
from mmrerank.rerank.onebyone import calls_one_by_one, one_by_one
from mmrerank.rerank.relevance import chance
from mmrerank.rerank.thrift import Thrift
from mmrerank.types import Candidate, Query, Ranking

NEEDS: tuple[Capability, ...] = ("choice_logprobs",)
FAMILY = "pointwise"
PAPER = "INQUIRE (arXiv 2411.02537); SFT or CL, GMR (arXiv 2510.14824)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``formula``: ``margin`` of yes over no, or ``yes`` alone. ``think`` lets the model reason first.

    ``alpha`` (1 keeps all), ``beta`` (0 never stops) and ``top`` as in `mmrerank.rerank.thrift.Thrift`.
    ``weight`` is the judgement's share beside the first stage's score. ``image_tokens`` bounds the visual
    tokens per image.
    """

    formula: Literal["margin", "yes"] = "margin"
    think: bool = False
    alpha: Share = 1.0
    beta: UpTo = 0
    top: Count = 10
    weight: Share = 1.0
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
        Thrift(alpha=self.alpha, beta=self.beta, top=self.top)
        if not 0 <= self.weight <= 1:
            raise ValueError("weight must be from 0 to 1")

    def needs(self) -> tuple[Capability, ...]:
        """Thoughts are written."""
        return (*NEEDS, "generate") if self.think else NEEDS

    def calls(self, k: int) -> int:
        """The most questions for ``k`` candidates; an upper bound with pruning or early exit."""
        return calls_one_by_one(k)

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order."""
        return k if self.alpha >= 1 and not self.beta and self.weight >= 1 else 0


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Scores every candidate on its own, in one round unless it may stop early."""

    def ask(candidate: Candidate) -> Ask:
        question = comparisons.score(query, candidate, image_tokens=options.image_tokens)
        return comparisons.thinking(question, options.think)

    margin = options.formula == "margin"
    return (
        yield from one_by_one(
            ranking,
            ask=ask,
            read=comparisons.read_score if margin else comparisons.read_alone,
            tell=lambda v: f"yes/no margin {v:+.2f}" if margin else f"log P(yes) {v:.2f}",
            reason="ordered by the margin of yes over no" if margin else "ordered by P(yes)",
            relevance=chance if margin else math.exp,
            thrift=Thrift(alpha=options.alpha, beta=options.beta, top=options.top),
            weight=options.weight,
        )
    )
