"""Brightest: one yes or no about each image, the likeliest first.

A method of a package that is not mmrerank's.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmrerank.messages import Ask, Message, Part
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.types import Assessment, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("choice_logprobs",)
FAMILY = "pointwise"
PAPER = "nobody et al."


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``backwards`` turns the order of the answers round."""

    backwards: bool = False

    def calls(self, k: int) -> int:
        """One question an image."""
        return k


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Asks about every image in one round; an image without an answer keeps its place."""
    asks = []
    for candidate in ranking:
        shown = Part(text=candidate.text or "") if candidate.image is None else Part(image=candidate.image)
        words = Part(text=f"Does this show {query.words or 'what is looked for'}? Yes or no.")
        asks.append(
            Ask(
                messages=(Message(role="user", parts=(shown, words)),),
                choices=("yes", "no"),
                kind="score",
                query=query,
                shown=(candidate.id,),
            )
        )
    replies = yield asks
    chances = {c.id: r.logprobs["yes"] for c, r in zip(ranking, replies, strict=True) if not r.error}
    best = iter(sorted(chances, key=lambda i: -chances[i], reverse=options.backwards))
    order, _ = ranking.reorder(next(best) if i in chances else i for i in ranking.ids)
    told = {i: Assessment(reason=f"yes {v:.2f}") for i, v in chances.items()}
    return Outcome(
        ranking=order,
        explanation=Explanation(assessments=told, reason="by the chance of a yes"),
        repairs=Repairs(failed=len(ranking) - len(chances)),
    )
