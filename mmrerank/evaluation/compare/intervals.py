"""How sure a mean over queries is: percentile bootstrap intervals.

Efron 1979 (Annals of Statistics 7); for retrieval, Sakai 2006 (SIGIR): queries are drawn with replacement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

RESAMPLES = 10_000
_CELLS = 2_000_000  # places drawn at once: 16 MB of int64


def interval(
    values: Sequence[float], *, seed: int = 0, level: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The percentile interval of the mean of ``values``. Raises `ValueError` without any."""
    return interval_of_parts([values], seed=seed, level=level, resamples=resamples)


def paired(
    one: Mapping[str, float], other: Mapping[str, float], *, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """The mean of ``one - other`` over their queries, and its interval.

    Raises `ValueError` when the two do not have the same queries.
    """
    if one.keys() != other.keys():
        raise ValueError("a paired comparison needs the same queries on both sides")
    differences = [one[q] - other[q] for q in one]
    return sum(differences) / len(differences), interval(differences, seed=seed)


def interval_of_parts(
    parts: Sequence[Sequence[float]], *, seed: int, level: float, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The interval of the mean over parts of their means; queries are drawn within their part."""
    rng = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for part in parts:
        data = np.asarray(part, float)
        if not len(data):
            raise ValueError("an interval needs at least one value")
        rows = max(1, _CELLS // len(data))
        for start in range(0, resamples, rows):
            shape = (min(rows, resamples - start), len(data))
            means[start : start + rows] += data[rng.integers(len(data), size=shape)].mean(1)
    low, high = np.quantile(means / len(parts), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
