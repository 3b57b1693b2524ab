"""UniME-V2-Reranker: which of many fits best, read as a distribution, so that one question orders them all.

The released model generates one letter, a top-1 choice whose order is never made; its letters'
log-probabilities are the full order. ``mode=score`` is its other training task, yes or no for each image.
``weight`` mixes with the retrieval score, as LamRA, its ancestor, does with weights set by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mmrerank.limits import Count, ImageTokens, Share
from mmrerank.ports import Capability, Judging, StrategyOptions
from mmrerank.rerank.aggregate import by_value, first_scores, fused
from mmrerank.rerank.relevance import numbers
from mmrerank.rerank.strategies import first, judge
from mmrerank.types import Query, Ranking

NEEDS: tuple[Capability, ...] = ("choice_logprobs",)
FAMILY = "setwise"
PAPER = "UniME-V2 (arXiv 2510.13515)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``mode``: ``pick`` one of all, or ``score`` each. Only the first ``window`` (2 to 26) are picked from.

    ``weight`` is the judgement's share beside the first stage's score. ``image_tokens`` bounds the visual
    tokens per image.
    """

    mode: Literal["pick", "score"] = "pick"
    window: Count = 20
    weight: Share = 1.0
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
        if not 2 <= self.window <= 26:
            raise ValueError("window must be 2 to 26: each image needs a letter")
        if not 0 <= self.weight <= 1:
            raise ValueError("weight must be from 0 to 1")

    def calls(self, k: int) -> int:
        """Questions for ``k`` candidates."""
        return 0 if k < 2 else _first(self).calls(k) if self.mode == "pick" else k

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order."""
        if self.weight < 1:
            return 0
        return k if self.mode == "score" else _first(self).settles(k)


def _first(options: Options) -> first.Options:
    return first.Options(
        window=options.window, step=max(1, options.window // 2), image_tokens=options.image_tokens
    )


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Picks or scores; one candidate or none is returned without a question."""
    if options.mode == "score":
        plain = judge.Options(weight=options.weight, image_tokens=options.image_tokens)
        return (yield from judge.rank(query, ranking, plain))
    outcome = yield from first.rank(query, ranking, _first(options))
    if options.weight >= 1 or len(ranking) < 2:
        return outcome
    # windows give no common scale, but places do
    places = {i: -float(n) for n, i in enumerate(outcome.ranking.ids)}
    known = {i: v for i, v in places.items() if i in outcome.explanation.assessments}
    mixed = fused(known, first_scores(ranking), options.weight)
    after, _ = ranking.reorder(by_value(ranking.ids, mixed))
    reason = "places by one answer's letters beside the first stage's scores"
    explanation = replace(outcome.explanation, reason=reason, **numbers(after.ids, mixed))
    return replace(outcome, ranking=after, explanation=explanation)
