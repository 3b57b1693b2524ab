"""Scores a run against qrels, whatever made them: what ``mmrerank score`` and ``compare`` stand on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrerank.benchmark import Measured, Qrels, Ranked, Run, Scores
from mmrerank.errors import InputError, UsageError
from mmrerank.evaluation.measure import short
from mmrerank.evaluation.measure.metrics import measure
from mmrerank.evaluation.measure.runs import read_qrels, read_raw, read_run

RunLike = Path | str | Run | Mapping[str, Mapping[str, float]]
"""A run: a file, our object, or scores by query and document."""
QrelsLike = Path | str | Qrels
"""Relevance judgements: a file, or grades by query and document."""


def as_run(run: RunLike) -> tuple[Run, str]:
    """The run, and what messages call it. Documents of plain data stand by score, equal ones as they came.

    Raises `InputError` for a file that cannot be read, and for scores that are no numbers.
    """
    if isinstance(run, Run):
        return run, run.tag
    if not isinstance(run, Mapping):
        return read_any(run), str(run)
    rows = {}
    for query, scores in run.items():
        if not isinstance(scores, Mapping) or not all(math.isfinite(s) for s in scores.values()):
            raise InputError(f"the run, query {query!r}: must map documents to finite scores")
        order = sorted(scores, key=lambda d: -scores[d])
        rows[str(query)] = Ranked([str(d) for d in order], [float(scores[d]) for d in order])
    return Run(rows=rows), "the run"


def as_qrels(qrels: QrelsLike) -> Qrels:
    """The judgements. Raises `InputError` for a file that cannot be read or judges no query."""
    found = qrels if isinstance(qrels, Mapping) else read_qrels(qrels)
    if not found:
        where = "the qrels judge" if isinstance(qrels, Mapping) else f"{qrels} judges"
        raise InputError(f"{where} no query")
    return found


def score_run(
    run: Run, qrels: Qrels, metrics: Sequence[str], *, where: str, tie_bounds: bool = False
) -> Scores:
    """Scores ``run`` by ``metrics``; ``where`` is what messages call it.

    Every query of ``qrels`` counts. Raises `InputError` for a run that has no query of the qrels, and
    `UsageError` for an unknown metric, or none.
    """
    if not metrics:
        raise UsageError("no metric was named; `mmrerank list metrics` shows them")
    warnings = [*unknown_queries(run.rows, qrels, where, "the qrels"), *_unjudged(run, qrels, where)]
    found, failed = parted(measure(run, qrels, metrics, tie_bounds=tie_bounds))
    return Scores(
        metrics=found,
        failed=failed,
        expected=len(qrels),
        missing=[q for q in qrels if q not in run.rows],
        warnings=[*warnings, *left_out(failed), *short.warnings(found)],
    )


def _unjudged(run: Run, qrels: Qrels, where: str) -> list[str]:
    """A warning where the qrels judge none of a run's documents: their ids may be spelt in another way."""
    judged = {d for own in qrels.values() for d in own}
    lists = [Ranked.of(rows).ids for q, rows in run.rows.items() if q in qrels]
    if not judged or not any(lists) or any(d in judged for ids in lists for d in ids):
        return []
    used = {d for ids in lists for d in ids}
    return [
        f"{where}: the qrels judge none of its documents; its ids are like {quoted(sorted(used))}, those of "
        f"the qrels like {quoted(sorted(judged))}"
    ]


def parted(measured: Mapping[str, Measured]) -> tuple[dict[str, Measured], dict[str, str]]:
    """The metrics that have values, and why the others have none. Raises `InputError` where none has."""
    found = {n: m for n, m in measured.items() if not m.error}
    failed = {n: m.error for n, m in measured.items() if m.error}
    if failed and not found:
        raise InputError("; ".join(f"{n}: {why}" for n, why in failed.items()))
    return found, failed


def left_out(failed: Mapping[str, str]) -> list[str]:
    """A sentence about each metric that could not be computed."""
    return [f"{name} is left out: {why}" for name, why in failed.items()]


def read_any(path: Path | str) -> Run:
    """A run in either of our formats: TREC's six columns, or raw scores as JSON lines."""
    name = Path(path).name.removesuffix(".gz")
    return read_raw(path) if name.endswith(".jsonl") else read_run(path)


def unknown_queries(rows: Mapping[str, Any], known: Mapping[str, Any], path: str, where: str) -> list[str]:
    """A warning when a run has queries that are not asked for; `InputError` when it has no others."""
    if not rows:
        raise InputError(f"{path} answers no query")
    unknown = [q for q in rows if q not in known]
    if not unknown:
        return []
    if len(unknown) == len(rows):
        raise InputError(
            f"{path} has no query of {where}: its ids are like {quoted(unknown)}, theirs like {quoted(known)}"
        )
    return [f"{path}: {len(unknown)} queries are not in {where} and not scored ({quoted(unknown)})"]


def quoted(ids: Iterable[str], shown: int = 3) -> str:
    """The first few of ``ids``, to recognise them by."""
    every = list(ids)
    return ", ".join(map(repr, every[:shown])) + (", ..." if len(every) > shown else "")
