"""ICR: the order by attention. How much is each image looked at while the search is read?

All images stand in one prompt and the search after them. Two passes share the images: the search, and "N/A",
whose attention is subtracted, since some images are looked at whatever is asked. Tokens far below their
image's mean (mean - 2 sigma) are dropped as noise. Nothing is generated. The first-stage order is turned, so
that the likeliest images stand last, next to the search.

Relevance is an image's part of all attention above that of the search without content; the parts add up to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmrerank.limits import ImageTokens
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank.aggregate import by_value
from mmrerank.rerank.relevance import falling, parts
from mmrerank.rerank.states import NOTHING, Matrix, attend, read_attention
from mmrerank.types import Assessment, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("attention",)
FAMILY = "attention"
PAPER = "ICR, in-context re-ranking (arXiv 2410.02642)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``calibrate`` subtracts the attention of a search without content.

    ``pool``: an image's ``mean`` over its tokens, or their ``sum`` as in the paper, which favours images
    with more tokens. ``image_tokens`` bounds the visual tokens per image.
    """

    calibrate: bool = True
    pool: Literal["mean", "sum"] = "mean"
    image_tokens: ImageTokens = 256

    def calls(self, k: int) -> int:
        """Passes for ``k`` candidates; the images are read once for all of them."""
        return 0 if k < 2 else 1 + self.calibrate


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Reads attention once or twice; one candidate or none is returned without a question."""
    if len(ranking) < 2:
        return Outcome(ranking=ranking)
    group = ranking.candidates[::-1]  # best last
    # a reference image is content too, so that it is not in the search without any
    searches = [query, NOTHING] if options.calibrate else [query]
    asks = [attend(q, group, image_tokens=options.image_tokens) for q in searches]
    replies = yield asks
    seen, *prior = (read_attention(r, a) for a, r in zip(asks, replies, strict=True))
    failed = (seen is None) + sum(p is None for p in prior)
    values: dict[str, float] = {}
    raw: dict[str, float] = {}
    if seen is not None:
        raw = {c.id: pooled(s, options.pool) for c, s in zip(group, seen, strict=True)}
        base = prior[0] if prior and prior[0] is not None else [np.zeros_like(s) for s in seen]
        values = {c.id: pooled(s - b, options.pool) for c, s, b in zip(group, seen, base, strict=True)}
    # what the calibration leaves even, the attention itself decides
    after, _ = ranking.reorder(by_value(by_value(ranking.ids, raw), values))
    assessments = {i: Assessment(reason=f"attention {v:+.4g}") for i, v in values.items()}
    return Outcome(
        ranking=after,
        explanation=Explanation(
            assessments=assessments,
            scores=values,
            relevance=falling(after.ids, parts(values)),
            reason="ordered by how much the search attends to each image"
            + (", less what it attends to without a search" if options.calibrate else ""),
        ),
        repairs=Repairs(failed=failed),
    )


def pooled(tokens: Matrix, pool: str) -> float:
    """One number of an image's token scores ``(n,)``: outliers below mean - 2 sigma are dropped."""
    scores = np.asarray(tokens, dtype=np.float64)
    kept = scores[scores >= scores.mean() - 2 * scores.std()]
    # rounded, so that images with the same bytes score the same wherever they stand in a sum
    return round(float(kept.mean() if pool == "mean" else kept.sum()), 12)
