"""What was measured: a metric's values by query, lists that are too short for it, and a run's scores.

`mmrerank.benchmark` and `mmrerank.ports` pass on every name. Nothing is computed here but means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Short:
    """Lists that are too short for a figure, by unit: `mmrerank.evaluation.measure.short` has the rule.

    ``held`` says how many names each list has, ``wanted`` how many are looked at. Those of ``lacking`` miss a
    right answer, so that longer lists could change their values. ``explained``: a warning of the benchmark's
    own says what follows.
    """

    held: Mapping[str, int]
    wanted: Mapping[str, int]
    lacking: frozenset[str] = frozenset()
    explained: bool = False

    def to_dict(self) -> dict[str, Any]:
        """``{"lists", "lacking", "wanted", "first"}``: how many, the most names wanted, and the first ids."""
        return {
            "lists": len(self.held),
            "lacking": len(self.lacking),
            "wanted": max(self.wanted.values(), default=0),
            "first": list(self.held)[:3],
        }


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One metric. Its unit is a query, or a dialogue where the metric judges whole dialogues.

    ``values`` holds the units that the run answered, ``expected`` every unit that counts. ``parts``, where
    there are any, name the units of each part (category, data set, round): the mean is then taken over the
    parts' means, each part counting the same. ``absent`` is what a unit without an answer counts as.
    ``lowest`` and ``highest`` are the values under the worst and the best order of tied documents. ``short``
    names lists that are too short, also those of units that do not count here: see `too_short`. Values that
    are no fractions (counts) are not shown as percentages. ``error`` says why there are no values.
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
    short: Short | None = None
    is_fraction: bool = True
    error: str = ""

    @property
    def too_short(self) -> Short | None:
        """The lists of its own units that are too short; None where all are long enough."""
        if self.short is None:
            return None
        held = {u: self.short.held[u] for u in self.expected if u in self.short.held}
        lacking = self.short.lacking & held.keys()
        return replace(self.short, held=held, lacking=lacking) if held else None

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
        """``{"value", "value_scored", "tie_rule"}``, ``tie_bounds`` where they were asked for, and ``short``
        where lists are too short.
        """
        body: dict[str, Any] = {
            "value": self.value,
            "value_scored": self.value_scored,
            "tie_rule": self.tie_rule,
        }
        if self.bounds is not None:
            body["tie_bounds"] = list(self.bounds)
        if (short := self.too_short) is not None:
            body["short"] = short.to_dict()
        return body


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Every metric of one run, how many queries it answered, and what a reader must know.

    ``missing`` are the ids of expected queries that the run lacks, in the benchmark's order; ``failed`` says
    of metrics that could not be computed why.
    """

    metrics: Mapping[str, Measured]
    expected: int
    missing: Sequence[str] = ()
    benchmark: str | None = None
    split: str | None = None
    warnings: Sequence[str] = ()
    failed: Mapping[str, str] = field(default_factory=dict)

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
            **({"failed_metrics": dict(self.failed)} if self.failed else {}),
            "warnings": list(self.warnings),
        }
