"""Putting judgements together into an order: pure functions over ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmrerank.types import Assessment

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
    """Mean verdict (met 1, partly 0.5, missed 0) over what could be told; None when nothing could."""
    values = [VERDICT_VALUE[v.verdict] for v in assessment.verdicts]
    told = [v for v in values if v is not None]
    return sum(told) / len(told) if told else None


def by_value(prior: Sequence[str], values: Mapping[str, float]) -> list[str]:
    """Ids with a value sorted by it, highest first, ties in prior order; the others keep their slots."""
    judged = sorted((i for i in prior if i in values), key=lambda i: -values[i])
    return keep_slots(prior, judged)
