"""How sure a mean, or a difference of two runs over the same queries, is: the bootstrap over queries.

Percentile intervals (Efron 1979; for retrieval, Sakai 2006, SIGIR): queries are drawn with replacement.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmrerank.evaluate.metrics import Values

RESAMPLES = 10_000


def interval(
    values: Sequence[float], *, seed: int = 0, level: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The percentile interval of the mean of ``values``. Raises `ValueError` without any."""
    if not len(values):
        raise ValueError("an interval needs at least one value")
    data = np.asarray(values, float)
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            data[rng.integers(len(data), size=(min(500, resamples - n), len(data)))].mean(1)
            for n in range(0, resamples, 500)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired(one: Values, other: Values, *, seed: int = 0) -> tuple[float, tuple[float, float]]:
    """The mean of ``one - other`` over their queries, and its interval.

    Raises `ValueError` when the two do not have the same queries.
    """
    if one.keys() != other.keys():
        raise ValueError("a paired comparison needs the same queries on both sides")
    differences = [one[q] - other[q] for q in one]
    return sum(differences) / len(differences), interval(differences, seed=seed)
