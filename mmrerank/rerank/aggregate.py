"""Putting judgements together into an order: pure functions over ids."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmrerank.types import Assessment, Ranking

VERDICT_VALUE = {"met": 1.0, "partly": 0.5, "missed": 0.0, "cannot_tell": None}


def keep_slots(prior: Sequence[str], judged: Sequence[str]) -> list[str]:
    """``prior`` with the ids of ``judged`` put in that order into the places they hold together.

    Law: ids outside ``judged`` keep their rank exactly. So what could not be judged is left where the
    first stage put it, neither rewarded nor punished.
    """
    chosen = set(judged)
    order = iter(judged)
    return [next(order) if id_ in chosen else id_ for id_ in prior]


def verdict_sum(assessment: Assessment) -> float | None:
    """Mean verdict (met 1, partly 0.5, missed 0) over what could be known; None when nothing could."""
    values = [VERDICT_VALUE[v.verdict] for v in assessment.verdicts]
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def by_value(prior: Sequence[str], values: Mapping[str, float]) -> list[str]:
    """Ids with a value sorted by it, highest first, ties in prior order; the others keep their slots."""
    judged = sorted((i for i in prior if i in values), key=lambda i: -values[i])
    return keep_slots(prior, judged)


def mean_known(values: Sequence[float]) -> float | None:
    """Mean over what is known: NaN is no information. None when nothing is."""
    known = [v for v in values if not math.isnan(v)]
    # exact, so that equal means do not differ by the order in which they were added up
    return math.fsum(known) / len(known) if known else None


def min_max(values: Mapping[str, float]) -> dict[str, float]:
    """``values`` stretched to 0..1; all alike become 0.5, which says nothing."""
    if not values:
        return {}
    low, high = min(values.values()), max(values.values())
    if high - low <= 0:
        return dict.fromkeys(values, 0.5)
    return {i: (v - low) / (high - low) for i, v in values.items()}


def fused(values: Mapping[str, float], first: Mapping[str, float], weight: float) -> dict[str, float]:
    """``weight`` of a judgement and the rest of the first stage's score, both stretched to 0..1.

    At weight 1 the values are returned as they are. An image without a first-stage score has its value
    alone; one without a value is not in the result.
    """
    if weight >= 1:
        return dict(values)
    mine, stage = min_max(values), min_max({i: s for i, s in first.items() if i in values})
    return {i: weight * v + (1 - weight) * stage.get(i, v) for i, v in mine.items()}


def first_scores(ranking: Ranking) -> dict[str, float]:
    """The first stage's scores of those candidates that have one."""
    return {c.id: c.score for c in ranking if c.score is not None and not math.isnan(c.score)}


def rrf(rankings: Sequence[Sequence[str]], *, k: float = 60.0) -> dict[str, float]:
    """Reciprocal rank fusion: the sum of 1 / (k + rank) over rankings (Cormack et al., SIGIR 2009)."""
    scores: dict[str, float] = {}
    for ids in rankings:
        for rank, id_ in enumerate(ids, start=1):
            scores[id_] = scores.get(id_, 0.0) + 1 / (k + rank)
    return scores


def borda(rankings: Sequence[Sequence[str]]) -> dict[str, float]:
    """Borda count: how many others each id stands before, summed over rankings."""
    scores: dict[str, float] = {}
    for ids in rankings:
        for rank, id_ in enumerate(ids):
            scores[id_] = scores.get(id_, 0.0) + len(ids) - 1 - rank
    return scores


Preferences = NDArray[np.float64]
"""``(n, n)``: P(row is better than column), NaN where nothing is known; the diagonal is not read."""


def mean_preference(p: Preferences) -> list[float | None]:
    """Each row's mean preference over the pairs that are known: soft Borda."""
    return [mean_known([*p[n, :n], *p[n, n + 1 :]]) for n in range(len(p))]


def copeland(p: Preferences) -> list[float | None]:
    """Share of known pairs won, a tie counting half (Copeland's rule)."""
    won = np.where(np.isnan(p), np.nan, np.where(p > 0.5, 1.0, np.where(p < 0.5, 0.0, 0.5)))
    return mean_preference(won)


def bradley_terry(p: Preferences, *, rounds: int = 200) -> list[float | None]:
    """Log-strengths of the Bradley-Terry model with soft wins, by Hunter's MM iteration (2004).

    A tenth of a win against an average opponent stands on both sides, so that strengths stay finite.
    None for a row of which no pair is known.
    """
    known = ~np.isnan(p)
    np.fill_diagonal(known, val=False)
    games = (known & known.T).astype(float)
    wins = np.where(known & known.T, np.nan_to_num(p), 0.0).sum(1)
    strength = np.ones(len(p))
    prior = 0.1
    for _ in range(rounds):
        meeting = games / (strength[:, None] + strength[None, :])
        strength = (wins + prior) / (meeting.sum(1) + 2 * prior / (strength + 1.0))
        strength /= np.exp(np.log(strength).mean())
    return [round(float(np.log(s)), 9) if games[n].any() else None for n, s in enumerate(strength)]
