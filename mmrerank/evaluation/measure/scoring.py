"""Scores a run against qrels, whatever made them: what ``mmrerank score`` and ``compare`` stand on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrerank.benchmark import Qrels, Run, Scores
from mmrerank.errors import InputError, UsageError
from mmrerank.evaluation.measure.metrics import measure
from mmrerank.evaluation.measure.runs import read_raw, read_run


def score_run(
    path: Path | str, qrels: Qrels, metrics: Sequence[str], *, tie_bounds: bool = False
) -> Scores:
    """Scores the run at ``path`` (TREC, or raw scores as `read_raw` takes them) by ``metrics``.

    Every query of ``qrels`` counts. Raises `InputError` for a run that cannot be read or that has no query
    of the qrels, and `UsageError` for an unknown metric, or none.
    """
    if not metrics:
        raise UsageError("no metric was named; `mmrerank list metrics` shows them")
    if not qrels:
        raise InputError("the qrels judge no query")
    run = read_any(path)
    warnings = unknown_queries(run.rows, qrels, str(path), "the qrels")
    return Scores(
        metrics=measure(run, qrels, metrics, tie_bounds=tie_bounds),
        expected=len(qrels),
        missing=[q for q in qrels if q not in run.rows],
        warnings=warnings,
    )


def read_any(path: Path | str) -> Run:
    """A run in either of our formats: TREC's six columns, or raw scores as JSON lines."""
    name = Path(path).name.removesuffix(".gz")
    return read_raw(path) if name.endswith(".jsonl") else read_run(path)


def unknown_queries(
    rows: Mapping[str, Any], known: Mapping[str, Any], path: str, where: str
) -> list[str]:
    """A warning when a run has queries that are not asked for; `InputError` when it has no others."""
    if not rows:
        raise InputError(f"{path} answers no query")
    unknown = [q for q in rows if q not in known]
    if not unknown:
        return []
    if len(unknown) == len(rows):
        raise InputError(
            f"{path} has no query of {where}: its ids are like {quoted(unknown)}, "
            f"theirs like {quoted(known)}"
        )
    return [f"{path}: {len(unknown)} queries are not in {where} and not scored ({quoted(unknown)})"]


def quoted(ids: Iterable[str], shown: int = 3) -> str:
    """The first few of ``ids``, to recognise them by."""
    every = list(ids)
    return ", ".join(map(repr, every[:shown])) + (", ..." if len(every) > shown else "")
