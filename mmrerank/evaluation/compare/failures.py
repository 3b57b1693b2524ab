"""Which queries to look at first: where a run loses most against the baseline, and where it is worst.

Only values are looked at; showing the images is `report`'s business.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from mmrerank.evaluation.compare.comparison import Comparison


@dataclass(frozen=True, kw_only=True)
class FailedQuery:
    """One query of one run. ``gain`` is how much better than the baseline it is: below 0 is a loss."""

    query: str
    run: str
    metric: str
    value: float
    baseline_value: float
    gain: float


def lost_most(comparison: Comparison, metric: str, run: str, count: int) -> tuple[FailedQuery, ...]:
    """Up to ``count`` queries on which ``run`` is worse than the baseline, the largest loss first."""
    gains = comparison.gains(metric, run)
    worse = sorted((q for q in gains if gains[q] < 0), key=lambda q: (gains[q], q))
    return _failures(comparison, metric, run, gains, worse[:count])


def lowest(
    comparison: Comparison, metric: str, run: str, count: int, *, but: Collection[str] = ()
) -> tuple[FailedQuery, ...]:
    """Up to ``count`` queries whose value under ``run`` is worst, the worst first.

    Those in ``but`` are left out, and so are those on which nothing could be better: 1, where higher is.
    """
    values = comparison.value(metric, run).by_query
    lower = metric in comparison.lower_is_better
    left = [q for q, v in values.items() if q not in but and (lower or v < 1)]
    worst = sorted(left, key=lambda q: (-values[q] if lower else values[q], q))
    return _failures(comparison, metric, run, comparison.gains(metric, run), worst[:count])


def _failures(
    comparison: Comparison, metric: str, run: str, gains: dict[str, float], chosen: list[str]
) -> tuple[FailedQuery, ...]:
    values = comparison.value(metric, run).by_query
    base = comparison.value(metric, comparison.baseline).by_query
    return tuple(
        FailedQuery(query=q, run=run, metric=metric, value=values[q], baseline_value=base[q], gain=gains[q])
        for q in chosen
    )  # fmt: skip
