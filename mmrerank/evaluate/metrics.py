"""Metrics by query over runs and qrels, computed by ir-measures (trec_eval's semantics).

Our names, such as ``nDCG@10`` and ``P@1``, and what they are in ir-measures. Ties do not occur: a `Run`
is an order, and it is scored as that order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrerank.errors import UsageError
from mmrerank.evaluate.runs import Qrels, Run

Values = Mapping[str, float]
"""A metric's value by query id."""


def by_query(run: Run, qrels: Qrels, metrics: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Values by metric and query. Every query of ``qrels`` has one: a query that ``run`` lacks gets 0.

    ``metrics`` maps the names wanted to expressions of ir-measures. Raises `UsageError` for one that
    it does not know.
    """
    import ir_measures

    wanted: dict[Any, str] = {}
    for name, expression in metrics.items():
        try:
            wanted[ir_measures.parse_measure(expression)] = name
        except (NameError, ValueError) as error:
            raise UsageError(f"{expression!r} is not a metric: {error}") from None
    order = {q: {r.id: float(-n) for n, r in enumerate(rows)} for q, rows in run.rows.items()}
    found = {name: dict.fromkeys(qrels, 0.0) for name in metrics}
    graded = {q: dict(judged) for q, judged in qrels.items()}
    for value in ir_measures.iter_calc(list(wanted), graded, order):
        found[wanted[value.measure]][value.query_id] = float(value.value)
    return found


def mean(values: Values) -> float:
    """The mean over queries; 0 without any."""
    return sum(values.values()) / len(values) if values else 0.0
