"""`mmrerank.score`: any run against any relevance judgements, by any metric. Imports no model code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmrerank.benchmark import Measured, Scores
from mmrerank.evaluation.compare.rendering import Cell, Table
from mmrerank.evaluation.measure import short
from mmrerank.evaluation.measure.metrics import split_names
from mmrerank.evaluation.measure.scoring import QrelsLike, RunLike, as_qrels, as_run, score_run
from mmrerank.evaluation.per_query import per_query, per_query_dict
from mmrerank.evaluation.tabular import Tabular

METRICS = ("nDCG@10", "AP", "RR", "P@1", "R@10")


@dataclass(frozen=True, kw_only=True)
class ScoreReport(Tabular):
    """What a run scored. ``scores`` has every metric with its value for each query."""

    title: str
    scores: Scores

    @property
    def metrics(self) -> Mapping[str, Measured]:
        """Every metric by name."""
        return self.scores.metrics

    @property
    def warnings(self) -> Sequence[str]:
        """What a reader of the figures must know."""
        return self.scores.warnings

    @property
    def tables(self) -> tuple[Table, ...]:  # noqa: D102
        return (scores_table(self.scores, title=self.title),)

    @property
    def records(self) -> list[dict[str, Any]]:  # noqa: D102
        return [{"metric": n, **m.to_dict()} for n, m in self.metrics.items()]

    @property
    def per_query(self) -> Mapping[str, Mapping[str, float]]:
        """By metric, the value of each query; one without an answer has the value that it counts as."""
        return per_query(self.scores)

    def to_dict(self, *, by_query: bool = False) -> dict[str, Any]:
        """The figures as plain data; ``by_query`` adds ``per_query`` and the ids of ``missing_queries``."""
        return {**self.scores.to_dict(), **(per_query_dict(self.scores) if by_query else {})}


def score(
    run: RunLike, qrels: QrelsLike, metrics: str | Sequence[str] = METRICS, *, tie_bounds: bool = False
) -> ScoreReport:
    """Scores ``run`` against ``qrels`` by ``metrics`` (names of ``mmrerank list metrics``).

    ``run`` is a file (TREC, raw scores), a `mmrerank.ports.Run` or ``{query: {document: score}}``; ``qrels``
    a file or ``{query: {document: grade}}``. Every query of the qrels counts. With ``tie_bounds`` also under
    the worst and the best order of equal scores. Raises `UsageError` for an unknown metric and `InputError`
    for a file that cannot be read, or a run that has no query of the qrels.

    >>> found = score({"q1": {"a": 0.9, "b": 0.2}}, {"q1": {"b": 1}}, ["RR"])
    >>> found.metrics["RR"].value
    0.5
    """
    names = split_names(metrics) if isinstance(metrics, str) else list(metrics)
    lists, where = as_run(run)
    scores = score_run(lists, as_qrels(qrels), names, where=where, tie_bounds=tie_bounds)
    return ScoreReport(title=where, scores=scores)


def scores_table(scores: Scores, *, title: str, only: Sequence[str] = ()) -> Table:
    """A row for each metric; ``only`` names those to show where there are too many of them."""
    lacking = len(scores.missing)
    bounds = any(m.bounds for m in scores.metrics.values())
    chosen = [m for n, m in scores.metrics.items() if not only or n in only]
    rows, rule = [], ""
    for one in chosen:
        lower = " (lower is better)" if one.lower_is_better else ""
        row = [Cell(text=one.name + lower), _figure(one, one.value)]
        row += [_figure(one, one.value_scored)] if lacking else []
        if bounds:
            low_high = " to ".join(figure(one, v) for v in one.bounds or ())
            row.append(Cell(text=low_high, numeric=True))
        # said once for neighbours
        row.append(Cell(text="" if one.tie_rule == rule else one.tie_rule))
        rule = one.tie_rule
        rows.append(row)
    asked = f"{scores.expected} queries"
    notes = [short.NOTE] if any(m.too_short for m in chosen) else []
    more = len(scores.metrics) - len(chosen)
    return Table(
        title=f"{title}: {asked}" + (f", {lacking} of them without an answer" if lacking else ""),
        columns=[
            "metric", "value", *(["answered only"] if lacking else []),
            *(["tie bounds"] if bounds else []), "equal scores",
        ],
        rows=rows,
        notes=[*notes, *([f"{more} more with --output json"] if more else [])],
    )  # fmt: skip


def figure(measured: Measured, value: float) -> str:
    """A fraction as percent; a count, and a metric without an upper bound of 1, as it is."""
    return f"{value:.4f}" if measured.lower_is_better or not measured.is_fraction else f"{100 * value:.2f} %"


def _figure(measured: Measured, value: float) -> Cell:
    mark = short.MARK if measured.too_short else ""
    return Cell(text=figure(measured, value) + mark, value=value, numeric=True)
