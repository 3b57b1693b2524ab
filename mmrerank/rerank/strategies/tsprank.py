"""TSPRank: all pairs are compared, and the ranking is what they agree on, or the best path through them.

By default images are ordered by the share of their pairs that they win (Copeland's rule); ``borda`` takes the
mean preference, ``bradley_terry`` the strengths that explain the comparisons best. ``path`` is the paper's:
the edge from one image to the next is the log-probability that the first is better, so that a path is worth
the probability of all its steps. A path reads neighbours only. It is exact for a consistent model and meant
for trained scores; on the noisy pairs of a model as it comes it orders far worse (Kendall's tau 0.55 against
0.85).

Relevance is the share of pairs won, the mean preference, or the probability to be better than an average
image (``bradley_terry``); along a path it is the place, as the share of the other images that one stands
before.
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
from mmrerank.rerank.relevance import Numbers, chance, numbers, placed
from mmrerank.types import Assessment, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("choice_logprobs",)
FAMILY = "pairwise"
PAPER = "TSPRank (arXiv 2411.12064)"
_RULES = {"copeland": copeland, "borda": mean_preference, "bradley_terry": bradley_terry}
_CLOSE = 1e-9  # what an edge in first-stage order is worth more: it decides between equals only


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``aggregate``: how comparisons become an order. ``image_tokens`` bounds the visual tokens per image."""

    aggregate: Literal["copeland", "borda", "bradley_terry", "path"] = "copeland"
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
    told: Numbers
    if options.aggregate == "path":
        after, _ = ranking.reorder(ranking.ids[n] for n in _path(p))
        places = placed(after.ids)
        told = {"scores": {}, "relevance": {i: v for i, v in places.items() if i in compared.compared}}
    else:
        rule = _RULES[options.aggregate](p)
        values = {i: round(v, 9) for i, v in zip(ranking.ids, rule, strict=True) if v is not None}
        after, _ = ranking.reorder(by_value(ranking.ids, values))
        told = numbers(after.ids, values, chance if options.aggregate == "bradley_terry" else float)
    assessments = {
        i: Assessment(reason=f"preferred in {v:.0%} of its pairs") for i, v in mean.items() if v is not None
    }
    how = "the likeliest path through all" if options.aggregate == "path" else options.aggregate
    return Outcome(
        ranking=after,
        explanation=Explanation(
            assessments=assessments, reason=f"{how} of {len(pairs)} pairs asked in both orders", **told
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
