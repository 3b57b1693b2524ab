"""Fewer judgements for nearly the same top: pruning before, stopping early on the way.

From late interaction's gather and refine (CP and EE of two-step multivector retrieval), where a skipped
candidate saves a product of matrices; here it saves a call of a language model. Works with any judgement
that gives one image a number.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from mmrerank.messages import Ask, Reply
from mmrerank.rerank.aggregate import first_scores, min_max
from mmrerank.types import Candidate, Ranking

Scoring = Callable[[Sequence[Candidate]], Generator[list[Ask], list[Reply], Sequence[float | None]]]
"""Asks about some candidates in one round and returns a number each, None where nothing is known."""


@dataclass(frozen=True, kw_only=True)
class Thrift:
    """What may be left out. The defaults leave out nothing.

    ``alpha``: candidates whose first-stage score, stretched to 0..1, is below ``(1 - alpha)`` times that of
    place ``top`` are not judged; larger keeps more, 1 keeps all. ``beta``: after ``top`` candidates,
    judging stops when ``beta`` in a row did not enter the best ``top``; 0 never stops.
    """

    alpha: float = 1.0
    beta: int = 0
    top: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError("alpha must be from 0 to 1")
        if self.beta < 0:
            raise ValueError("beta must be 0 (never stop) or more")
        if self.top < 1:
            raise ValueError("top must be at least 1")


def kept(ranking: Ranking, thrift: Thrift) -> list[Candidate]:
    """The candidates that pruning leaves: at least the first ``top``, and any without a score."""
    stretched = min_max(first_scores(ranking))
    if thrift.alpha >= 1 or len(ranking) <= thrift.top:
        return list(ranking)
    border = stretched.get(ranking.ids[thrift.top - 1], 0.0) * (1 - thrift.alpha)
    return [c for place, c in enumerate(ranking) if place < thrift.top or stretched.get(c.id, 1.0) >= border]


def scored(
    ranking: Ranking, thrift: Thrift, scoring: Scoring
) -> Generator[list[Ask], list[Reply], tuple[dict[str, float], int]]:
    """Numbers by id of the candidates that were judged, and how many judgements failed."""
    left = kept(ranking, thrift)
    values: dict[str, float] = {}
    failed = in_vain = 0
    first = thrift.top if thrift.beta else len(left)
    take, left = left[:first], left[first:]
    while take:
        border = sorted(values.values(), reverse=True)[: thrift.top][-1:] or [float("-inf")]
        found = yield from scoring(take)
        for candidate, value in zip(take, found, strict=True):
            if value is None:
                failed += 1
                continue  # a failed judgement is no sign that the rest is worse
            better = len(values) < thrift.top or value > border[0]
            in_vain = 0 if better else in_vain + 1
            values[candidate.id] = value
            border = sorted(values.values(), reverse=True)[: thrift.top][-1:]
        # as many at once as must be asked anyway before it can stop: the calls of one at a time
        more = thrift.beta - in_vain if thrift.beta else 0
        take, left = left[: max(more, 0)], left[max(more, 0) :]
    return values, failed
