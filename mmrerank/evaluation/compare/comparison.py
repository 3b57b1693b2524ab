"""What a comparison of runs found: values, differences, groups of queries. `compare` makes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mmrerank.benchmark import Short

SEEN = "seen"
"""The grouping that `compare` makes of ``seen``; its groups are ``seen`` and ``novel``."""
Verdict = Literal["better", "worse", "not different", "judgements failed"]
"""``judgements failed``: no difference is shown, and a run of the two holds the first stage's order where its
judgements failed."""


@dataclass(frozen=True, kw_only=True)
class RunValue:
    """One run under one metric. ``by_query`` has every expected query, absent ones filled in.

    ``missing`` is how many were filled in; ``value_scored`` is the mean without them. ``short``: lists that
    are too short for the metric.
    """

    metric: str
    run: str
    value: float
    value_scored: float
    missing: int
    by_query: Mapping[str, float]
    short: Short | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data; values by query are left out, ``short`` is there where lists are too short."""
        short = {"short": self.short.to_dict()} if self.short else {}
        return {
            "metric": self.metric,
            "run": self.run,
            "value": self.value,
            "value_scored": self.value_scored,
            "missing": self.missing,
            **short,
        }


@dataclass(frozen=True, kw_only=True)
class Difference:
    """``run`` minus ``baseline`` under one metric: how large, how sure, and what it may be called.

    ``interval`` is not corrected for many comparisons; ``p_corrected`` is, and decides the verdict.
    ``wins``, ``losses`` and ``ties`` count queries on which ``run`` is better, worse and equal. ``short``:
    lists of one of the two are too short for the metric, which may be all the difference.
    """

    metric: str
    run: str
    baseline: str
    value: float
    interval: tuple[float, float]
    p: float
    p_corrected: float
    verdict: Verdict
    wins: int
    losses: int
    ties: int
    short: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "metric": self.metric,
            "run": self.run,
            "baseline": self.baseline,
            "difference": self.value,
            "interval": list(self.interval),
            "p": self.p,
            "p_corrected": self.p_corrected,
            "verdict": self.verdict,
            "queries": {"better": self.wins, "worse": self.losses, "equal": self.ties},
            **({"short": True} if self.short else {}),
        }


@dataclass(frozen=True, kw_only=True)
class GroupValue:
    """One run under one metric on the queries of one category, or on the seen or the novel ones.

    ``difference`` is against the baseline (0 for the baseline itself), ``interval`` is its own. Groups are
    described, not tested.
    """

    grouping: str
    name: str
    metric: str
    run: str
    queries: int
    value: float
    difference: float
    interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "grouping": self.grouping,
            "group": self.name,
            "metric": self.metric,
            "run": self.run,
            "queries": self.queries,
            "value": self.value,
            "difference": self.difference,
            "interval": list(self.interval),
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that was compared. ``lower_is_better`` names the metrics of which that holds.

    ``differences`` are against ``baseline`` first; with all pairs, the other pairs follow. ``queries`` is
    how many count, the most under any metric. ``draws`` are the randomisation test's. ``failed`` is in how
    many queries a run's judgements failed, as far as its results say.
    """

    runs: Sequence[str]
    metrics: Sequence[str]
    baseline: str
    values: Sequence[RunValue]
    differences: Sequence[Difference]
    groups: Sequence[GroupValue]
    lower_is_better: frozenset[str]
    queries: int
    level: float
    seed: int
    draws: int
    warnings: Sequence[str] = ()
    failed: Mapping[str, int] = field(default_factory=dict)

    @property
    def challengers(self) -> tuple[str, ...]:
        """The runs that are not the baseline."""
        return tuple(r for r in self.runs if r != self.baseline)

    @property
    def groupings(self) -> tuple[str, ...]:
        """The names of the breakdowns there are."""
        return tuple(dict.fromkeys(g.grouping for g in self.groups))

    def value(self, metric: str, run: str) -> RunValue:
        """The run's values under the metric."""
        return next(v for v in self.values if (v.metric, v.run) == (metric, run))

    def difference(self, metric: str, run: str) -> Difference | None:
        """The run's difference from the baseline; None for the baseline itself."""
        wanted = (metric, run, self.baseline)
        found = (d for d in self.differences if (d.metric, d.run, d.baseline) == wanted)
        return next(found, None)

    def gains(self, metric: str, run: str) -> dict[str, float]:
        """By query, how much better ``run`` is than the baseline: positive is better, whatever the metric."""
        base = self.value(metric, self.baseline).by_query
        sign = -1 if metric in self.lower_is_better else 1
        return {q: sign * (v - base[q]) for q, v in self.value(metric, run).by_query.items()}

    def with_failures(self, failed: Mapping[str, tuple[int, int, str]]) -> Comparison:
        """The same, marking the runs whose judgements failed: in how many queries, of how many, and why.

        Where no difference is shown, such a run is not called "not different": the first stage's order
        against itself shows nothing.
        """
        found = {run: row for run, row in failed.items() if row[0]}
        if not found:
            return self
        warnings = [
            f"{run}: judgements failed in {n} of {of} queries ({why}); there the first-stage order stands, "
            "so its figures are not the method's own; `mmrerank eval ... --retry-failed` asks again"
            for run, (n, of, why) in found.items()
        ]
        differences = [
            replace(d, verdict="judgements failed")
            if d.verdict == "not different" and found.keys() & {d.run, d.baseline}
            else d
            for d in self.differences
        ]
        counts = {run: n for run, (n, _, _) in found.items()}
        return replace(self, failed=counts, differences=differences, warnings=(*self.warnings, *warnings))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; fractions, not percentages."""
        return {
            "baseline": self.baseline,
            "runs": list(self.runs),
            "metrics": list(self.metrics),
            "lower_is_better": [m for m in self.metrics if m in self.lower_is_better],
            "queries": self.queries,
            "level": self.level,
            "seed": self.seed,
            "draws": self.draws,
            "correction": "holm",
            "comparisons": len(self.differences),
            "values": [v.to_dict() for v in self.values],
            "differences": [d.to_dict() for d in self.differences],
            "groups": [g.to_dict() for g in self.groups],
            "failed": dict(self.failed),
            "warnings": list(self.warnings),
        }
