"""What a run scored: a value per query and metric, and the means that a table shows.

A mean always says over what it was taken: ``value`` counts a query without an answer as nothing (or as the
worst, where lower is better), ``value_scored`` leaves it out. No metric is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One metric. Its unit is a query, or a dialogue where the metric judges whole dialogues.

    ``values`` holds the units that the run answered, ``expected`` every unit that counts. ``parts``, where
    there are any, name the units of each part (category, data set, round): the mean is then taken over the
    parts' means, each part counting the same. ``absent`` is what a unit without an answer counts as.
    ``lowest`` and ``highest`` are the values under the worst and the best order of tied documents.
    """

    name: str
    values: Mapping[str, float]
    expected: Sequence[str]
    tie_rule: str
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    absent: float = 0.0
    lower_is_better: bool = False
    lowest: Mapping[str, float] | None = None
    highest: Mapping[str, float] | None = None

    @property
    def value(self) -> float:
        """The mean over every expected unit, absent ones included; 0 without any."""
        return self._mean(self.values, whole=True)

    @property
    def value_scored(self) -> float:
        """The mean over the units that have a value; 0 without any."""
        return self._mean(self.values, whole=False)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """``value`` under the worst and the best order of tied documents, where that was asked for."""
        if self.lowest is None or self.highest is None:
            return None
        return self._mean(self.lowest, whole=True), self._mean(self.highest, whole=True)

    def _mean(self, values: Mapping[str, float], *, whole: bool) -> float:
        means = []
        for units in self.parts.values() if self.parts else (self.expected,):
            if whole:
                found = [values.get(u, self.absent) for u in units]
            else:
                found = [values[u] for u in units if u in values]
            if found:
                means.append(sum(found) / len(found))
        return sum(means) / len(means) if means else 0.0

    def to_dict(self) -> dict[str, Any]:
        """``{"value", "value_scored", "tie_rule"}``, and ``tie_bounds`` where they were asked for."""
        body: dict[str, Any] = {
            "value": self.value,
            "value_scored": self.value_scored,
            "tie_rule": self.tie_rule,
        }
        if self.bounds is not None:
            body["tie_bounds"] = list(self.bounds)
        return body


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Every metric of one run, how many queries it answered, and what a reader must know.

    ``missing`` are the ids of expected queries that the run lacks, in the benchmark's order.
    """

    metrics: Mapping[str, Measured]
    expected: int
    missing: Sequence[str] = ()
    benchmark: str | None = None
    split: str | None = None
    warnings: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; fractions, not percentages."""
        return {
            "benchmark": self.benchmark,
            "split": self.split,
            "metrics": {name: m.to_dict() for name, m in self.metrics.items()},
            "queries": {
                "expected": self.expected,
                "scored": self.expected - len(self.missing),
                "missing": len(self.missing),
            },
            "warnings": list(self.warnings),
        }
