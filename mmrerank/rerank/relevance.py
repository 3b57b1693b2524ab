"""Relevance: a method's own numbers as 0 to 1, for a person.

Three laws hold for every method: a relevance is from 0 to 1, it is never higher further down the ranking,
and a candidate that the method knows nothing of (its question failed, or it was in none) has none. What the
number means is the method's business, and stands in its docstring. A method ends with
``Explanation(..., **numbers(after.ids, values, chance))``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypedDict

from mmrerank.types import Explanation

_MOST = 1e30
"""Infinite scores become this, which single precision holds too."""


class Numbers(TypedDict):
    """The two fields of `mmrerank.types.Explanation` that hold numbers."""

    scores: dict[str, float]
    relevance: dict[str, float]


def numbers(
    ids: Sequence[str], scores: Mapping[str, float], relevance: Callable[[float], float] = float
) -> Numbers:
    """The method's own ``scores`` as they are, and ``relevance`` of each, for a ranking of ``ids``.

    >>> numbers(["a", "b", "c"], {"a": 2.0, "c": 0.0}, chance)["relevance"]
    {'a': 0.8807970779778823, 'c': 0.5}
    """
    known = {
        i: min(max(s, -_MOST), _MOST)  # a file of results holds no infinity
        for i in ids
        if (s := scores.get(i)) is not None and not math.isnan(s)
    }
    return {"scores": known, "relevance": falling(ids, {i: relevance(s) for i, s in known.items()})}


def lawful(explanation: Explanation, ids: Sequence[str]) -> Explanation:
    """``explanation`` of a ranking of ``ids`` by the laws above, whoever wrote the method."""
    told = numbers(ids, explanation.scores)
    return replace(explanation, scores=told["scores"], relevance=falling(ids, explanation.relevance))


def falling(ids: Iterable[str], values: Mapping[str, float]) -> dict[str, float]:
    """``values`` cut to 0..1, and none above one that stands before it in ``ids``.

    For a ranking that something else than ``values`` has a part in. Others than ``ids`` are left out.

    >>> falling(["a", "b", "c"], {"a": 0.7, "b": 0.9, "c": -0.1})
    {'a': 0.7, 'b': 0.7, 'c': 0.0}
    """
    found: dict[str, float] = {}
    most = 1.0
    for id_ in ids:
        value = values.get(id_)
        if value is None or math.isnan(value):
            continue
        most = found[id_] = min(max(value, 0.0), most)
    return found


def chance(margin: float) -> float:
    """The probability of the first of two answers out of log P(first) - log P(second): a sigmoid."""
    # the side on which the exponential cannot overflow
    return 1 / (1 + math.exp(-margin)) if margin >= 0 else math.exp(margin) / (1 + math.exp(margin))


def out_of(top: float) -> Callable[[float], float]:
    """The share of the highest mark, such as ``out_of(99)`` for scores from 0 to 99."""
    return lambda value: value / top


def shares(logs: Mapping[str, float]) -> dict[str, float]:
    """Log-probabilities (or logits) of labels as shares that add up to 1: a softmax."""
    whole = log_sum(logs.values())
    return {i: math.exp(v - whole) for i, v in logs.items()}


def log_sum(logs: Collection[float]) -> float:
    """The logarithm of a sum of probabilities, out of their logarithms; 0 without any."""
    most = max(logs, default=0.0)
    return most + math.log(math.fsum(math.exp(v - most) for v in logs)) if logs else 0.0


def parts(amounts: Mapping[str, float]) -> dict[str, float]:
    """Each one's part of the sum, negative amounts counting 0; equal parts where nothing is left."""
    kept = {i: max(v, 0.0) for i, v in amounts.items()}
    total = math.fsum(kept.values())
    return {i: v / total if total > 0 else 1 / len(kept) for i, v in kept.items()}


def placed(ids: Sequence[str], settled: int | None = None) -> dict[str, float]:
    """The share of the others that each of ``ids`` stands before: all that an order without numbers says.

    The best has 1, the last 0. Of the places after the first ``settled`` only their mean is known. An order
    of one says nothing.

    >>> placed(["a", "b", "c", "d", "e"], settled=2)
    {'a': 1.0, 'b': 0.75, 'c': 0.25, 'd': 0.25, 'e': 0.25}
    """
    k = len(ids)
    if k < 2:
        return {}
    first = k if settled is None else min(settled, k)
    rest = (k - 1 - first) / 2
    return {i: (k - 1 - n if n < first else rest) / (k - 1) for n, i in enumerate(ids)}


def chained(ids: Sequence[str], rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One scale out of several windows: scores that never rise along ``ids``, the last round's as they are.

    Neighbours stand as far apart as in the last of ``rounds`` that had them both. Two that no round had
    together, or that their round had the other way, are told apart by the least step. Who was in no round has
    no score.

    >>> chained(["a", "b", "c"], [{"b": 5.0, "c": 3.0}, {"a": 9.0, "b": 8.0}])
    {'a': 9.0, 'b': 8.0, 'c': 6.0}
    """
    own: dict[str, float] = {}
    for values in rounds:
        own.update(values)
    known = [i for i in ids if i in own]
    found = {i: own[i] for i in known[:1]}
    for before, id_ in pairwise(known):
        both = next((r for r in reversed(rounds) if before in r and id_ in r), None)
        if both is None or both[before] < both[id_]:
            found[id_] = math.nextafter(found[before], -math.inf)
        elif found[before] == both[before]:
            found[id_] = both[id_]  # on the last round's scale, to the last digit
        else:
            found[id_] = found[before] - (both[before] - both[id_])
    return found


def stacked(upper: Mapping[str, float], lower: Mapping[str, float]) -> dict[str, float]:
    """Scores of two scales as one: the best of ``lower`` is moved to 1 below the least of ``upper``."""
    rest = {i: v for i, v in lower.items() if i not in upper}
    if not upper or not rest:
        return {**upper, **rest}
    move = min(upper.values()) - 1 - max(rest.values())
    return {**upper, **{i: v + move for i, v in rest.items()}}
