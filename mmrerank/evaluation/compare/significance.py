"""Whether a difference of paired values could be chance: the randomisation test, and Holm's correction.

Sign flipping (Fisher 1935; for retrieval, Smucker, Allan, Carterette 2007, CIKM): were both systems the same,
each query's difference could as well have the other sign. Nothing here knows runs or metrics.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DRAWS = 10_000
_CELLS = 2_000_000  # signs held at once: 16 MB of float64


def randomisation(differences: Sequence[float], *, draws: int = DRAWS, seed: int = 0) -> float:
    """The two-sided p of the sum of ``differences`` (one a query) under random signs; 1 when all are zero.

    Exact where there are no more sign patterns than ``draws``: every one is looked at. Otherwise ``draws``
    random ones, and the observed pattern counts as one more, so that p is never 0 and a true null is
    rejected no more often than the level says (Phipson and Smyth 2010). Raises `ValueError` for a
    difference that is not finite, and for ``draws`` below 1.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, not {draws}")
    data = np.asarray(differences, float)
    if not np.isfinite(data).all():
        raise ValueError("a difference is not finite")
    data = data[data != 0]  # a zero has no sign to flip
    if not len(data):
        return 1.0
    # patterns whose sum is the same but for rounding count as equal
    extreme = abs(data.sum()) - 1e-10 * np.abs(data).sum()
    if len(data) < 60 and 2 ** len(data) <= draws:
        patterns = np.arange(2 ** len(data))[:, None] >> np.arange(len(data)) & 1
        return float(np.mean(np.abs(_sums(patterns, data)) >= extreme))
    rng = np.random.default_rng(seed)
    rows = max(1, _CELLS // len(data))
    hits = 0
    for start in range(0, draws, rows):
        flips = rng.integers(0, 2, size=(min(rows, draws - start), len(data)), dtype=np.int8)
        hits += int((np.abs(_sums(flips, data)) >= extreme).sum())
    return (hits + 1) / (draws + 1)


def _sums(flips: np.ndarray, data: np.ndarray) -> np.ndarray:
    """The sums ``(patterns,)`` of ``data`` ``(n,)`` with the signs turned where ``flips`` is 1."""
    sums: np.ndarray = data.sum() - 2 * (flips.astype(float) @ data)
    return sums


def holm(ps: Sequence[float]) -> list[float]:
    """``ps`` corrected for being many (Holm 1979), in the order given.

    Rejecting what is at most the level keeps the chance of any false alarm among all of them below it,
    whatever their dependence. Never smaller than the p given, never above 1.
    """
    corrected = [1.0] * len(ps)
    least = 0.0
    for place, n in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        least = max(least, min(1.0, (len(ps) - place) * ps[n]))
        corrected[n] = least
    return corrected
