"""What a comparison shows as tables: values, differences, groups, cost, and every figure in long form.

Rendering is `tables`' business.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mmrerank.benchmark import Short
from mmrerank.evaluation.compare.comparison import SEEN, Comparison, Difference
from mmrerank.evaluation.compare.rendering import Cell, Mark, Table
from mmrerank.evaluation.measure.short import MARK, NOTE
from mmrerank.types import Usage

_MARKS: dict[str, Mark] = {"better": "up", "worse": "down", "not different": "", "judgements failed": ""}
_SHORT = f"{MARK} Lists of one of the two are too short for the metric, which may be all of the difference."


def values_table(comparison: Comparison) -> Table:
    """Runs by metrics: the best value strong, and what differs from the baseline marked."""
    best = {m: _best(comparison, m) for m in comparison.metrics}
    gaps = any(v.missing for v in comparison.values)
    rows = []
    for run in comparison.runs:
        row = [Cell(text=f"{run} (judgements failed)" if run in comparison.failed else run)]
        for metric in comparison.metrics:
            one = comparison.value(metric, run)
            found = comparison.difference(metric, run)
            row.append(
                Cell(
                    text=shown(one.value) + (MARK if one.short else ""),
                    value=one.value,
                    numeric=True,
                    # a figure of lists too short is not called the best
                    strong=not one.short and shown(one.value) == shown(best[metric]),
                    mark=_MARKS[found.verdict] if found else "",
                )
            )
        if gaps:
            missing = max(comparison.value(m, run).missing for m in comparison.metrics)
            row.append(_count(missing))
        rows.append(row)
    columns = ["run", *(heading(comparison, m) for m in comparison.metrics)]
    return Table(
        title=f"Mean over {comparison.queries} queries",
        columns=[*columns, "missing"] if gaps else columns,
        rows=rows,
        notes=_values_notes(comparison, gaps),
    )


def _values_notes(comparison: Comparison, gaps: bool) -> list[str]:
    # a run whose judgements failed has not shown that it is no different
    plain = "no difference shown" if comparison.failed else "not different"
    notes = [
        f"↑ better, ↓ worse than {comparison.baseline} (p ≤ {comparison.level:g} after "
        f"correction); unmarked: {plain}. {how_tested(comparison)}"
    ]
    notes += [
        f"{run}: judgements failed in {n} {'query' if n == 1 else 'queries'}; there the first-stage order "
        "stands."
        for run, n in comparison.failed.items()
    ]
    if gaps:
        notes.append("Missing: queries that a run lacks; they count as nothing, or as the worst.")
    if any(v.short for v in comparison.values):
        notes.append(NOTE)
    return notes


def how_tested(comparison: Comparison) -> str:
    """One sentence: which test, and how it was corrected."""
    count = len(comparison.differences)
    return (
        f"Paired randomisation test over queries, {comparison.draws:,} draws, "
        f"Holm's correction for {count} comparison{'s' if count > 1 else ''}."
    )


def differences_table(comparison: Comparison) -> Table:
    """A row for each difference: how large, its interval, p, and what it is called."""
    rows = []
    for one in comparison.differences:
        rows.append(
            [
                Cell(text=one.metric),
                Cell(text=f"{one.run} - {one.baseline}"),
                Cell(text=_signed(one.value), value=one.value, numeric=True),
                Cell(text=_interval(one), numeric=True),
                Cell(text=_p(one.p), value=one.p, numeric=True),
                Cell(text=_p(one.p_corrected), value=one.p_corrected, numeric=True),
                Cell(text=one.verdict + (MARK if one.short else ""), mark=_MARKS[one.verdict]),
                Cell(text=f"{one.wins}/{one.losses}/{one.ties}", numeric=True),
            ]
        )
    sure = f"{100 * (1 - comparison.level):g}% interval"
    return Table(
        title="Differences",
        columns=[
            "metric", "runs", "difference", sure, "p", "p corrected", "verdict", "better/worse/equal",
        ],
        rows=rows,
        notes=[
            f"The verdict goes by the corrected p. {how_tested(comparison)}",
            "Intervals: bootstrap over queries, each by itself. "
            "Better/worse/equal counts queries.",
            *([_SHORT] if any(d.short for d in comparison.differences) else []),
        ],
    )  # fmt: skip


def groups_table(comparison: Comparison, grouping: str, metric: str) -> Table:
    """Groups by runs under one metric: each run's mean, and its difference from the baseline."""
    chosen = [g for g in comparison.groups if (g.grouping, g.metric) == (grouping, metric)]
    short = {v.run: v.short for v in comparison.values if v.metric == metric}
    rows = []
    for name in dict.fromkeys(g.name for g in chosen):
        here = {g.run: g for g in chosen if g.name == name}
        base = here[comparison.baseline]
        row = [Cell(text=name), _count(base.queries), _value(base.value, short.get(comparison.baseline))]
        for run in comparison.challengers:
            row += [
                _value(here[run].value, short.get(run)),
                Cell(text=_signed(here[run].difference), value=here[run].difference, numeric=True),
            ]
        rows.append(row)
    columns = [grouping, "queries", comparison.baseline]
    for run in comparison.challengers:
        columns += [run, "difference"]
    return Table(
        title=f"{heading(comparison, metric)} {by(grouping)}",
        columns=columns,
        rows=rows,
        notes=[f"Differences from {comparison.baseline}; groups are described, not tested."]
        + ([NOTE] if any(short.values()) else []),
    )


def cost_table(comparison: Comparison, usage: Mapping[str, Usage], metric: str) -> Table:
    """Quality beside what it cost: model calls, tokens and seconds, a query."""
    rows = []
    for run in comparison.runs:
        if run not in usage:
            continue
        one, queries = usage[run], comparison.queries
        rows.append(
            [
                Cell(text=run),
                _value(comparison.value(metric, run).value, comparison.value(metric, run).short),
                *(
                    Cell(text=_amount(v / queries), value=v / queries, numeric=True)
                    for v in (one.calls, one.input_tokens, one.output_tokens, one.seconds)
                ),
            ]
        )
    return Table(
        title="Quality and cost, a query",
        columns=[
            "run", heading(comparison, metric), "calls", "tokens in", "tokens out", "seconds",
        ],
        rows=rows,
        notes=[NOTE] if any(comparison.value(metric, r).short for r in comparison.runs) else [],
    )  # fmt: skip


def usage_dict(usage: Usage) -> dict[str, float]:
    """Plain data, ready for JSON."""
    return dataclasses.asdict(usage)


LONG = (
    "grouping", "group", "metric", "run", "baseline", "queries", "missing", "value", "value_scored",
    "difference", "low", "high", "p", "p_corrected", "verdict", "short_lists",
)  # fmt: skip


def long_table(comparison: Comparison) -> Table:
    """Every figure, one line for each run, metric and group: the form for other programs.

    Where a group is named, there is no test. Pairs without the baseline have lines of their own.
    """
    rows: list[dict[str, str | float]] = []
    for one in comparison.values:
        row: dict[str, str | float] = {
            "metric": one.metric, "run": one.run, "queries": len(one.by_query),
            "missing": one.missing, "value": one.value, "value_scored": one.value_scored,
            "short_lists": len(one.short.held) if one.short else 0,
        }  # fmt: skip
        found = [d for d in comparison.differences if (d.metric, d.run) == (one.metric, one.run)]
        rows += [{**row, **_long(d)} for d in found]
        if one.run == comparison.baseline:
            rows.append(row)
    for group in comparison.groups:
        row = {
            "grouping": group.grouping, "group": group.name, "metric": group.metric,
            "run": group.run, "queries": group.queries, "value": group.value,
        }  # fmt: skip
        if group.run != comparison.baseline:
            low, high = group.interval
            row |= {"baseline": comparison.baseline, "difference": group.difference}
            row |= {"low": low, "high": high}
        rows.append(row)
    return Table(title="Comparison", columns=LONG, rows=[[_any(r.get(c)) for c in LONG] for r in rows])


def _long(one: Difference) -> dict[str, str | float]:
    return {
        "baseline": one.baseline, "difference": one.value, "low": one.interval[0],
        "high": one.interval[1], "p": one.p, "p_corrected": one.p_corrected, "verdict": one.verdict,
    }  # fmt: skip


def _any(value: str | float | None) -> Cell:
    if value is None or isinstance(value, str):
        return Cell(text=value or "")
    if isinstance(value, int):
        return _count(value)
    return Cell(text=shown(value), value=value, numeric=True)


def heading(comparison: Comparison, metric: str) -> str:
    """The metric's name, and that lower is better where it is."""
    return f"{metric} (lower is better)" if metric in comparison.lower_is_better else metric


def by(grouping: str) -> str:
    """What a title says of a breakdown."""
    return "on seen and novel queries" if grouping == SEEN else f"by {grouping}"


def shown(value: float) -> str:
    """A value as tables print it: four decimals, two from ten on."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _value(value: float, short: Short | None = None) -> Cell:
    return Cell(text=shown(value) + (MARK if short else ""), value=value, numeric=True)


def _count(value: int) -> Cell:
    return Cell(text=str(value), value=value, numeric=True)


def _signed(value: float) -> str:
    text = shown(value)
    return text if text.startswith("-") else f"+{text}"


def _interval(one: Difference) -> str:
    return f"[{_signed(one.interval[0])}, {_signed(one.interval[1])}]"


def _p(value: float) -> str:
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _amount(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _best(comparison: Comparison, metric: str) -> float:
    every = [comparison.value(metric, r) for r in comparison.runs]
    values = [v.value for v in every if not v.short] or [v.value for v in every]
    return min(values) if metric in comparison.lower_is_better else max(values)
