"""TSPRank: all pairs are compared, and the ranking is the best path through them.

The edge from one image to the next is the log-probability that the first is better, so that a path is worth
the probability of all its steps. On raw probabilities or logits a path orders badly; on log-probabilities it
is exact for a consistent model. Where the model is not, ``aggregate=copeland``, ``borda`` or
``bradley_terry`` over the same comparisons are usually better, since a path reads neighbours only.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from mmrerank.limits import ImageTokens
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank.aggregate import Preferences, bradley_terry, by_value, copeland, mean_preference
from mmrerank.rerank.pairs import Pairs
from mmrerank.rerank.path import best_path
from mmrerank.types import Assessment, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("choice_logprobs",)
FAMILY = "pairwise"
PAPER = "TSPRank (arXiv 2411.12064)"
_RULES = {"copeland": copeland, "borda": mean_preference, "bradley_terry": bradley_terry}
_CLOSE = 1e-9  # what an edge in first-stage order is worth more: it decides between equals only


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``aggregate``: how comparisons become an order. ``image_tokens`` bounds the visual tokens per image."""

    aggregate: Literal["path", "copeland", "borda", "bradley_terry"] = "path"
    image_tokens: ImageTokens = 256

    def calls(self, k: int) -> int:
        """Questions for ``k`` candidates: each pair in both orders."""
        return k * (k - 1)


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Compares all pairs in one round; one candidate or none is returned without a question."""
    images, k = ranking.candidates, len(ranking)
    if k < 2:
        return Outcome(ranking=ranking)
    pairs = list(combinations(range(k), 2))
    compared = Pairs(query, images, image_tokens=options.image_tokens)
    p = yield from compared.matrix(k, pairs)
    mean = dict(zip(ranking.ids, mean_preference(p), strict=True))
    if options.aggregate == "path":
        order = [ranking.ids[n] for n in _path(p)]
    else:
        rule = _RULES[options.aggregate](p)
        values = {i: round(v, 9) for i, v in zip(ranking.ids, rule, strict=True) if v is not None}
        order = by_value(ranking.ids, values)
    after, _ = ranking.reorder(order)
    assessments = {
        i: Assessment(reason=f"preferred in {v:.0%} of its pairs") for i, v in mean.items() if v is not None
    }
    how = "the likeliest path through all" if options.aggregate == "path" else options.aggregate
    return Outcome(
        ranking=after,
        explanation=Explanation(
            assessments=assessments, reason=f"{how} of {len(pairs)} pairs asked in both orders"
        ),
        repairs=Repairs(failed=compared.failed),
    )


def _path(p: Preferences) -> list[int]:
    """Places along the best path; what was never compared keeps its place."""
    known = [n for n in range(len(p)) if not np.isnan(np.delete(p[n], n)).all()]
    if len(known) < 2:
        return list(range(len(p)))
    sub = np.nan_to_num(p[np.ix_(known, known)], nan=0.5)  # an unknown pair is even
    edges = np.log(np.clip(sub, 1e-9, 1.0))  # a certain one still has a logarithm
    edges += _CLOSE * np.triu(sub == 0.5, 1)
    np.fill_diagonal(edges, 0.0)
    means = mean_preference(sub)
    start = sorted(range(len(known)), key=lambda n: -(means[n] or 0.0))
    found = iter([known[n] for n in best_path(edges, start)])
    chosen = set(known)
    return [next(found) if n in chosen else n for n in range(len(p))]
