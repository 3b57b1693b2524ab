"""A multimodal model as judge: P(Yes) / (P(Yes) + P(No)) of each image, asked in UniME-V2's own words.

The paper uses these scores to find hard negatives and as soft labels; here they order the candidates, and
``-o weight`` mixes them with the first stage, which a probability allows and a margin does not. Relevance is
that probability.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmrerank.limits import ImageTokens, Share
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Judging, StrategyOptions
from mmrerank.rerank import comparisons, unime
from mmrerank.rerank.onebyone import calls_one_by_one, one_by_one
from mmrerank.rerank.relevance import chance
from mmrerank.types import Candidate, Query, Ranking

NEEDS: tuple[Capability, ...] = ("choice_logprobs",)
FAMILY = "pointwise"
PAPER = "UniME-V2, MLLM-as-a-judge (arXiv 2510.13515)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``weight`` is the judgement's share beside the first stage's score, both stretched to 0..1.

    ``think`` lets the model reason first. ``exact`` counts the tokens Yes and No alone, for a model that was
    trained on them; otherwise all their spellings count. ``image_tokens`` bounds the visual tokens per image.
    """

    weight: Share = 1.0
    think: bool = False
    exact: bool = False
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
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
        return k if self.weight >= 1 else 0


def soft(reply: Reply) -> float | None:
    """P(Yes) among Yes and No, or None where the reply does not say."""
    margin = unime.read_pair(reply)
    return None if margin is None else chance(margin)


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Judges every candidate on its own, all in one round."""

    def ask(candidate: Candidate) -> Ask:
        question = unime.pair(query, candidate, image_tokens=options.image_tokens, exact=options.exact)
        return comparisons.thinking(question, options.think)

    return (
        yield from one_by_one(
            ranking,
            ask=ask,
            read=soft,
            tell=lambda v: f"judged to match with {v:.0%}",
            reason="ordered by the judge's probability of Yes",
            relevance=float,
            weight=options.weight,
        )
    )
