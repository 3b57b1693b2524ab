"""Pointwise: "does this image show everything?", one question per image, ordered by the yes/no margin.

log P(yes) - log P(no) of the next token, as INQUIRE's reranking baseline and "SFT or CL" (GMR) score. An
image whose judgement failed keeps its first-stage rank.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmrerank.ports import Capability, Judging, Outcome
from mmrerank.rerank import comparisons
from mmrerank.rerank.aggregate import by_value
from mmrerank.types import Assessment, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("choice_logprobs",)
FAMILY = "pointwise"
PAPER = "INQUIRE (arXiv 2411.02537); SFT or CL, GMR (arXiv 2510.14824)"


@dataclass(frozen=True, kw_only=True)
class Options:
    """``image_tokens`` bounds the visual tokens per image."""

    image_tokens: int = 256


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Scores every candidate on its own, all in one round."""
    replies = yield [
        comparisons.score(query, c, image_tokens=options.image_tokens) for c in ranking
    ]
    scores = [comparisons.read_score(r) for r in replies]
    values = {id_: s for id_, s in zip(ranking.ids, scores, strict=True) if s is not None}
    order, _ = ranking.reorder(by_value(ranking.ids, values))
    why = {id_: Assessment(reason=f"yes/no margin {s:+.2f}") for id_, s in values.items()}
    return Outcome(
        ranking=order,
        explanation=Explanation(assessments=why, reason="ordered by the margin of yes over no"),
        repairs=Repairs(failed=len(ranking) - len(values)),
    )
