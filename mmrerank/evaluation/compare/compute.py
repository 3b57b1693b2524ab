"""Runs compared over the same queries: differences, how sure they are, and what can be called different.

Intervals are those of `intervals`. A verdict is the randomisation test's, corrected for all comparisons made
(`significance`). A query without a value counts, on either side, as its metric's ``absent`` value: nothing,
or the worst. No metric is computed and nothing is printed or drawn here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from mmrerank.benchmark import Measured, Scores
from mmrerank.errors import InputError, UsageError
from mmrerank.evaluation.compare.comparison import SEEN, Comparison, Difference, GroupValue, RunValue, Verdict
from mmrerank.evaluation.compare.intervals import interval_of_parts
from mmrerank.evaluation.compare.significance import DRAWS, holm, randomisation

MOST_DRAWS = 1_000_000


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
    names, base = _named(runs, baseline, level)
    chosen = _common(runs, metrics)
    pairs = [(base, r) for r in names if r != base]
    if all_pairs:
        pairs += combinations([r for r in names if r != base], 2)
    count = len(pairs) * len(chosen)
    draws = min(max(DRAWS, math.ceil(2 * count / level)), MOST_DRAWS) if draws is None else draws

    values: dict[tuple[str, str], RunValue] = {}
    found: list[Difference] = []
    groups: list[GroupValue] = []
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
                _difference(values[metric, second], values[metric, first], shape, level, seed, draws)
            )
        for name, members in groupings.items():
            table = {run: values[metric, run] for run in names}
            groups += _groups(name, members, table, base, level, seed)
            warnings += _outside(name, members, shape)
    queries = max(len(runs[base].metrics[m].expected) for m in chosen)
    warnings += _out_of_reach(count, queries, draws, level)
    return Comparison(
        runs=names, metrics=chosen, baseline=base, values=tuple(values.values()), groups=tuple(groups),
        differences=_judged(found, chosen, runs[base], level),
        lower_is_better=frozenset(m for m in chosen if runs[base].metrics[m].lower_is_better),
        queries=queries, level=level, seed=seed, draws=draws, warnings=tuple(dict.fromkeys(warnings)),
    )  # fmt: skip


def _named(runs: Mapping[str, Scores], baseline: str | None, level: float) -> tuple[tuple[str, ...], str]:
    """The runs' names and the baseline's. Raises `UsageError`."""
    names = tuple(runs)
    if len(names) < 2:
        raise UsageError(f"a comparison needs at least two runs, not {len(names)}")
    if not 0 < level < 1:
        raise UsageError(f"the level must lie between 0 and 1, not {level}")
    base = names[0] if baseline is None else baseline
    if base not in runs:
        raise UsageError(f"the baseline must be one of {', '.join(names)}, not {base!r}")
    return names, base


def _out_of_reach(count: int, queries: int, draws: int, level: float) -> list[str]:
    """A warning where no difference could be significant, whatever it were."""
    few = ""
    if count * 2.0 ** (1 - queries) > level:
        few = f"{queries} queries"
    elif count / (draws + 1) > level:
        few = f"{draws:,} draws"
    if not few:
        return []
    return [f"with {few} and {count} comparison(s) no difference can reach the level {level:g}"]


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
    warnings = [f"{metric}: ties were ordered differently: {', '.join(rules)}"] if rules[1:] else []
    return warnings + _unlike_lengths(metric, measured)


def _unlike_lengths(metric: str, measured: Mapping[str, Measured]) -> list[str]:
    """A warning where lists are too short for the metric, and not the same in every run."""
    short = {run: found for run, one in measured.items() if (found := one.too_short)}
    if not short:
        return []
    lengths = {tuple(sorted(s.held.items())) for s in short.values()}
    if len(short) == len(measured) and len(lengths) == 1:
        return [f"{metric}: the same lists are too short in every run; all of its figures may be too low"]
    return [
        f"{metric}: lists of {', '.join(short)} are too short for it, so that its figures are not "
        "comparable: a difference may come from the length of lists alone"
    ]


def _filled(metric: str, run: str, one: Measured) -> RunValue:
    # sorted: the same queries in another order must meet the same random numbers
    return RunValue(
        metric=metric,
        run=run,
        value=float(one.value),
        value_scored=float(one.value_scored),
        missing=sum(u not in one.values for u in one.expected),
        by_query={u: float(one.values.get(u, one.absent)) for u in sorted(one.expected)},
        short=one.too_short,
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
        interval=interval_of_parts([[gaps[u] for u in part] for part in parts], seed=seed, level=1 - level),
        p=randomisation([g * weights[u] for u, g in gaps.items()], draws=draws, seed=seed),
        p_corrected=1.0,
        verdict="not different",
        wins=wins,
        losses=losses,
        ties=len(better) - wins - losses,
        short=bool(run.short or base.short),
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
) -> list[GroupValue]:
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
                GroupValue(
                    grouping=grouping,
                    name=name,
                    metric=one.metric,
                    run=run,
                    queries=len(asked),
                    value=math.fsum(one.by_query[q] for q in asked) / len(asked),
                    difference=math.fsum(gaps) / len(gaps),
                    interval=(0.0, 0.0) if same else interval_of_parts([gaps], seed=seed, level=1 - level),
                )
            )
    return found


def _outside(grouping: str, members: Mapping[str, str], shape: Measured) -> list[str]:
    left = sum(u not in members for u in shape.expected)
    total = len(shape.expected)
    return [f"{grouping}: {left} of {total} queries are in no group"] if left else []
