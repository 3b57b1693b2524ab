"""A TREC run file scored against qrels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmrerank.evaluate.metrics import by_query
from mmrerank.evaluate.runs import Qrels, read_run
from mmrerank.evaluate.scores import Measured, Scores


def score_run(
    path: Path, qrels: Qrels, metrics: Sequence[str], *, tie_bounds: bool = False
) -> Scores:
    """What the run of ``path`` scores under each of ``metrics``. Raises `InputError` and `UsageError`."""
    run = read_run(path)
    found = by_query(run, qrels, {m: m for m in metrics})
    missing = tuple(q for q in qrels if q not in run.rows)
    measured = {
        name: Measured(
            name=name,
            values={q: v for q, v in values.items() if q in run.rows},
            expected=tuple(qrels),
            tie_rule="the run's order",
        )
        for name, values in found.items()
    }
    return Scores(metrics=measured, expected=len(qrels), missing=missing)
