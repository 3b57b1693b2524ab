"""Runs compared over the same queries: differences, how sure they are, and what can be called different.

Intervals are percentile bootstrap intervals over queries (Efron 1979; for retrieval, Sakai 2006, SIGIR). A
verdict is the randomisation test's, corrected for all comparisons made (`significance`). A query without a
value counts, on either side, as its metric's ``absent`` value: nothing, or the worst. No metric is computed
and nothing is printed or drawn here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np

from mmrerank.errors import InputError, UsageError
from mmrerank.evaluate.scores import Measured, Scores
from mmrerank.evaluate.significance import DRAWS, holm, randomisation

RESAMPLES = 10_000
MOST_DRAWS = 1_000_000
SEEN = "seen"
"""The grouping that `compare` makes of ``seen``; its groups are ``seen`` and ``novel``."""
Verdict = Literal["better", "worse", "not different"]
_CELLS = 2_000_000  # places drawn at once: 16 MB of int64


def interval(
    values: Sequence[float], *, seed: int = 0, level: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The percentile interval of the mean of ``values``. Raises `ValueError` without any."""
    return _interval([values], seed=seed, level=level, resamples=resamples)


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


def _interval(
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


@dataclass(frozen=True, kw_only=True)
class RunValue:
    """One run under one metric. ``by_query`` has every expected query, absent ones filled in.

    ``missing`` is how many were filled in; ``value_scored`` is the mean without them.
    """

    metric: str
    run: str
    value: float
    value_scored: float
    missing: int
    by_query: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; values by query are left out."""
        return {
            "metric": self.metric,
            "run": self.run,
            "value": self.value,
            "value_scored": self.value_scored,
            "missing": self.missing,
        }


@dataclass(frozen=True, kw_only=True)
class Difference:
    """``run`` minus ``baseline`` under one metric: how large, how sure, and what it may be called.

    ``interval`` is not corrected for many comparisons; ``p_corrected`` is, and decides the verdict.
    ``wins``, ``losses`` and ``ties`` count queries on which ``run`` is better, worse and equal.
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
        }


@dataclass(frozen=True, kw_only=True)
class Group:
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
    how many count, the most under any metric. ``draws`` are the randomisation test's.
    """

    runs: Sequence[str]
    metrics: Sequence[str]
    baseline: str
    values: Sequence[RunValue]
    differences: Sequence[Difference]
    groups: Sequence[Group]
    lower_is_better: frozenset[str]
    queries: int
    level: float
    seed: int
    draws: int
    warnings: Sequence[str] = ()

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
            "warnings": list(self.warnings),
        }


def compare(
    runs: Mapping[str, Scores],
    *,
    baseline: str | None = None,
    metrics: Sequence[str] = (),
    categories: Mapping[str, Mapping[str, str]] | None = None,
    seen: Mapping[str, bool] | None = None,
    all_pairs: bool = False,
    level: float = 0.05,
    seed: int = 0,
    draws: int | None = None,
) -> Comparison:
    """Compares ``runs`` (by name) with ``baseline``, which is the first of them unless named.

    ``metrics`` are those wanted (default: all that every run has). ``categories`` maps the name of a
    breakdown to the category of each query; ``seen`` says of a query whether its like was trained on; a
    query in neither is left out of that breakdown. ``level`` is the chance of any false alarm among all
    comparisons (metrics times pairs). ``draws`` default to `DRAWS`, or as many as a corrected p needs to
    reach the level, up to `MOST_DRAWS`.

    The result does not depend on the order of queries, and swapping two runs negates it. Raises
    `UsageError` for fewer than two runs, an unknown baseline or metric, or a level not between 0 and 1,
    and `InputError` when runs were not scored on the same queries in the same way.
    """
    names = tuple(runs)
    if len(names) < 2:
        raise UsageError(f"a comparison needs at least two runs, not {len(names)}")
    if not 0 < level < 1:
        raise UsageError(f"the level must lie between 0 and 1, not {level}")
    base = names[0] if baseline is None else baseline
    if base not in runs:
        raise UsageError(f"the baseline must be one of {', '.join(names)}, not {base!r}")
    chosen = _common(runs, metrics)
    pairs = [(base, r) for r in names if r != base]
    if all_pairs:
        pairs += combinations([r for r in names if r != base], 2)
    count = len(pairs) * len(chosen)
    draws = min(max(DRAWS, math.ceil(2 * count / level)), MOST_DRAWS) if draws is None else draws

    values: dict[tuple[str, str], RunValue] = {}
    found: list[Difference] = []
    groups: list[Group] = []
    warnings = [f"{run}: {w}" for run, scores in runs.items() for w in scores.warnings]
    groupings = {**(categories or {}), **({SEEN: _split(seen)} if seen else {})}
    for metric in chosen:
        measured = {run: scores.metrics[metric] for run, scores in runs.items()}
        warnings += _check(metric, measured)
        for run, one in measured.items():
            values[metric, run] = _filled(metric, run, one)
        shape = measured[base]
        for first, second in pairs:
            found.append(
                _difference(
                    values[metric, second], values[metric, first], shape, level, seed, draws
                )
            )
        for name, members in groupings.items():
            table = {run: values[metric, run] for run in names}
            groups += _groups(name, members, table, base, level, seed)
            warnings += _outside(name, members, shape)
    queries = max(len(runs[base].metrics[m].expected) for m in chosen)
    if count * 2.0 ** (1 - queries) > level:
        warnings.append(
            f"with {queries} queries and {count} comparison(s) no difference can reach the level {level:g}"
        )
    elif count / (draws + 1) > level:
        warnings.append(
            f"with {draws:,} draws and {count} comparison(s) no difference can reach the level {level:g}"
        )
    return Comparison(
        runs=names,
        metrics=chosen,
        baseline=base,
        values=tuple(values.values()),
        differences=_judged(found, chosen, runs[base], level),
        groups=tuple(groups),
        lower_is_better=frozenset(m for m in chosen if runs[base].metrics[m].lower_is_better),
        queries=queries,
        level=level,
        seed=seed,
        draws=draws,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _common(runs: Mapping[str, Scores], wanted: Sequence[str]) -> tuple[str, ...]:
    first = next(iter(runs.values()))
    common = [m for m in first.metrics if all(m in s.metrics for s in runs.values())]
    if not common:
        raise InputError("the runs have no metric in common: score them with the same metrics")
    for metric in wanted:
        if metric not in common:
            raise UsageError(f"every run has the metrics {', '.join(common)}, not {metric!r}")
    return tuple(dict.fromkeys(wanted)) or tuple(common)


def _check(metric: str, measured: Mapping[str, Measured]) -> list[str]:
    """Warnings; raises `InputError` where values cannot be put side by side."""
    first_name, first = next(iter(measured.items()))
    if not first.expected:
        raise InputError(f"{metric}: {first_name} has no query to compare on")
    for run, one in measured.items():
        where = f"{metric}: {run} and {first_name} were scored"
        if set(one.expected) != set(first.expected):
            only = sorted(set(one.expected) ^ set(first.expected))
            raise InputError(
                f"{where} on different queries ({only[0]!r} and {len(only) - 1} more are in one only); "
                "score both with the same qrels"
            )
        parts = {p: set(u) for p, u in one.parts.items()}
        if parts != {p: set(u) for p, u in first.parts.items()}:
            raise InputError(f"{where} in different parts; score both on the same benchmark")
        if (one.absent, one.lower_is_better) != (first.absent, first.lower_is_better):
            raise InputError(f"{where} in different ways; score both on the same benchmark")
    rules = sorted({m.tie_rule for m in measured.values()})
    return [f"{metric}: ties were ordered differently: {', '.join(rules)}"] if rules[1:] else []


def _filled(metric: str, run: str, one: Measured) -> RunValue:
    # sorted: the same queries in another order must meet the same random numbers
    return RunValue(
        metric=metric,
        run=run,
        value=float(one.value),
        value_scored=float(one.value_scored),
        missing=sum(u not in one.values for u in one.expected),
        by_query={u: float(one.values.get(u, one.absent)) for u in sorted(one.expected)},
    )


def _difference(
    run: RunValue, base: RunValue, shape: Measured, level: float, seed: int, draws: int
) -> Difference:
    """Everything but the correction and the verdict."""
    gaps = {u: v - base.by_query[u] for u, v in run.by_query.items()}
    parts = [sorted(u) for _, u in sorted(shape.parts.items()) if u] or [list(gaps)]
    # a query counts as much as it does in the mean: parts weigh the same, whatever their size
    weights = dict.fromkeys(gaps, 0.0)
    for units in parts:
        for unit in units:
            weights[unit] += 1 / len(units)
    better = [-g if shape.lower_is_better else g for g in gaps.values()]
    wins, losses = sum(b > 0 for b in better), sum(b < 0 for b in better)
    return Difference(
        metric=run.metric,
        run=run.run,
        baseline=base.run,
        value=run.value - base.value,
        interval=_interval([[gaps[u] for u in part] for part in parts], seed=seed, level=1 - level),
        p=randomisation([g * weights[u] for u, g in gaps.items()], draws=draws, seed=seed),
        p_corrected=1.0,
        verdict="not different",
        wins=wins,
        losses=losses,
        ties=len(better) - wins - losses,
    )


def _judged(
    found: Sequence[Difference], metrics: Sequence[str], scores: Scores, level: float
) -> tuple[Difference, ...]:
    """``found`` with corrected p and verdict, pairs with the baseline first."""
    judged = []
    for one, p in zip(found, holm([d.p for d in found]), strict=True):
        verdict: Verdict = "not different"
        if p <= level and one.value:
            higher = one.value > 0
            verdict = "better" if higher != scores.metrics[one.metric].lower_is_better else "worse"
        judged.append(replace(one, p_corrected=p, verdict=verdict))
    return tuple(judged)


def _split(seen: Mapping[str, bool]) -> dict[str, str]:
    return {q: "seen" if known else "novel" for q, known in seen.items()}


def _groups(
    grouping: str,
    members: Mapping[str, str],
    table: Mapping[str, RunValue],
    base: str,
    level: float,
    seed: int,
) -> list[Group]:
    queries: dict[str, list[str]] = {}
    for query in table[base].by_query:
        if query in members:
            queries.setdefault(members[query], []).append(query)
    found = []
    for name in sorted(queries, reverse=grouping == SEEN):  # seen, then novel
        asked = queries[name]
        for run, one in table.items():
            gaps = [one.by_query[q] - table[base].by_query[q] for q in asked]
            same = run == base
            found.append(
                Group(
                    grouping=grouping,
                    name=name,
                    metric=one.metric,
                    run=run,
                    queries=len(asked),
                    value=math.fsum(one.by_query[q] for q in asked) / len(asked),
                    difference=math.fsum(gaps) / len(gaps),
                    interval=(0.0, 0.0) if same else _interval([gaps], seed=seed, level=1 - level),
                )
            )
    return found


def _outside(grouping: str, members: Mapping[str, str], shape: Measured) -> list[str]:
    left = sum(u not in members for u in shape.expected)
    total = len(shape.expected)
    return [f"{grouping}: {left} of {total} queries are in no group"] if left else []
