"""Values of a method's run, its intervals, and its gain over another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrerank.benchmark import Measured, Scores
from mmrerank.evaluation.compare.intervals import interval_of_parts


def values_of(scores: Scores) -> dict[str, float]:
    """Each metric's value."""
    return {name: m.value for name, m in scores.metrics.items()}


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Four digits after the point, as tables of methods show."""
    return {name: round(v, 4) for name, v in values.items()}


def filled(measured: Measured) -> dict[str, float]:
    """The value of every unit that counts."""
    return {u: measured.values.get(u, measured.absent) for u in measured.expected}


def interval_of(values: Mapping[str, float], shape: Measured) -> list[float]:
    """The 95% interval of the mean, parts weighing the same."""
    parts = [list(u) for u in shape.parts.values() if u] or [list(values)]
    if not all(parts):
        return [0.0, 0.0]
    low, high = interval_of_parts([[values[u] for u in p] for p in parts], seed=0, level=0.95)
    return [round(low, 4), round(high, 4)]


def gain_of(one: Measured, base: Measured) -> dict[str, Any]:
    """How much larger the mean is than that of ``base``, and the 95% interval."""
    values, before = filled(one), filled(base)
    gaps = {u: v - before[u] for u, v in values.items()}
    parts = [list(u) for u in one.parts.values() if u] or [list(gaps)]
    means = [sum(gaps[u] for u in p) / len(p) for p in parts if p]
    value = sum(means) / len(means) if means else 0.0
    return {"value": round(value, 4), "ci": interval_of(gaps, one)}
