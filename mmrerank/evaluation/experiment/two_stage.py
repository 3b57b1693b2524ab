"""A benchmark carried out: a first-stage run, its head reranked, both scored, everything written beside it.

The head is the first ``candidates`` of each list; what lies beyond keeps its order. The ceiling is what the
best order of the head would score: no reranker can pass it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrerank.benchmark import Answer, Ranked, Run, Scored, Scores, Task
from mmrerank.errors import InputError, UsageError
from mmrerank.evaluation import tasks as benchmark
from mmrerank.evaluation.experiment.first_stage import image_file, query_of
from mmrerank.evaluation.experiment.provenance import candidates_digest, provenance
from mmrerank.evaluation.experiment.reranking import Item
from mmrerank.evaluation.experiment.resume import Resumable
from mmrerank.evaluation.measure.metrics import in_order
from mmrerank.evaluation.measure.runs import write_run
from mmrerank.index.manifest import replace
from mmrerank.results import SearchResult
from mmrerank.types import Candidate, Image, Ranking, Usage

Locate = Callable[[str], Image]
"""The picture of a document. Raises `InputError` when there is none."""


def in_folder(task: Task, images: Path | None) -> Locate:
    """Pictures below a folder; without one, those that lie in the benchmark's own data."""
    if images is None and task.pictures is not None:
        return task.pictures
    return lambda document: Image(path=image_file(task, document, images))


def items_of(
    task: Task, run: Run, candidates: int, locate: Locate, images: Path | None
) -> list[Item]:
    """The queries of ``run`` with the head of their lists, as a reranker takes them.

    Documents that the protocol leaves out are not in the head. Raises `InputError` for a picture that is
    not there: reranking without it would judge something else than the run.
    """
    if candidates < 1:
        raise UsageError(f"candidates must be at least 1, not {candidates}")
    items = []
    for id_ in task.queries:
        if id_ not in run.rows:
            continue
        head = _listed(task, id_, run.rows[id_])[:candidates]
        if not len(head):
            continue
        members = tuple(
            _candidate(task, d, s, locate) for d, s in zip(head.ids, head.scores, strict=True)
        )
        items.append((query_of(task, id_, images), Ranking(members)))
    if not items:
        raise InputError(f"the run answers no query of {task.benchmark} {task.split}")
    return items


def _listed(task: Task, query: str, rows: Sequence[Scored]) -> Ranked:
    """A list without what the protocol leaves out, equal scores in an order that no label decides."""
    ranked = benchmark.without(task, {query: Ranked.of(rows)})[query]
    return benchmark.benchmark_of(task.benchmark).settle_ties(query, ranked)


def _candidate(task: Task, document: str, score: float, locate: Locate) -> Candidate:
    text = task.texts.get(document)
    if text is not None and document not in task.files:
        return Candidate(id=document, text=text, score=score)
    return Candidate(id=document, image=locate(document), text=text or None, score=score)


def reordered(
    task: Task, run: Run, orders: Mapping[str, Sequence[str]], candidates: int, tag: str
) -> Run:
    """``run`` with the heads in new orders and no ties left; a query without one keeps its list."""
    rows = {}
    for query, listed in run.rows.items():
        ranked = _listed(task, query, listed)
        order = orders.get(query)
        ids = list(ranked.ids) if order is None else [*order, *ranked.ids[candidates:]]
        rows[query] = Ranked.of(in_order(ids))
    return Run(rows=rows, tag=tag)


def ceiling(task: Task, run: Run, candidates: int) -> Scores:
    """What the best order of each head scores."""
    orders = {}
    for query, listed in run.rows.items():
        head = _listed(task, query, listed)[:candidates]
        orders[query] = _best(head.ids, task.qrels.get(query, {}))
    return score(task, reordered(task, run, orders, candidates, "ceiling"))


def _best(ids: Sequence[str], judged: Mapping[str, int]) -> list[str]:
    # equal ones as the data names them: CIRCO's R@k asks for its first right answer alone
    named = {d: n for n, d in enumerate(judged)}
    return sorted(ids, key=lambda d: (-judged.get(d, 0), named.get(d, 0)))


def score(task: Task, run: Run) -> Scores:
    """Scores a run that is in memory."""
    rows = {q: Ranked.of(r) for q, r in run.rows.items() if q in task.queries}
    rows = dict(benchmark.benchmark_of(task.benchmark).canonical(task, rows))
    return benchmark.score(task, [Answer(path=run.tag, kind="run", rows=rows)])


def rerank(
    task: Task,
    first: Run,
    items: Sequence[Item],
    judging: Resumable,
    *,
    method: str,
    options: Mapping[str, Any],
    candidates: int,
    folder: Path,
    models: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Reranks and writes ``METHOD.trec``, ``METHOD.jsonl`` and ``METHOD.json``. Returns plain data: what it
    cost, what the first stage and the best order of its head score, and where everything is from.

    With a limit in ``judging`` it returns the forecast of what is left, once that is not nothing.
    """
    told = judging.rerank(method, items, options=options)
    if len(told.results) < len(items):
        return {"method": method, "forecast": told.left.to_dict()}
    orders = {r.query.id: [h.id for h in r.hits] for r in told.results}
    run = reordered(task, first, orders, candidates, method)
    write_run(folder / f"{method}.trec", run)
    digest = candidates_digest(items)
    origin = provenance(
        config={
            "benchmark": task.benchmark,
            "split": task.split,
            "method": method,
            "options": dict(options),
            "candidates": candidates,
            "budget": judging.around.limits,
        },
        models={**models, "chat": judging.identity},
        first_stage=digest,
    )
    write(folder / f"{method}.jsonl", "".join(json.dumps(r.to_dict()) + "\n" for r in told.results))
    write(folder / f"{method}.json", json.dumps(origin, indent=2) + "\n")
    body: dict[str, Any] = {"method": method, "candidates": candidates, **_costs(told.results)}
    if task.qrels:
        body["ceiling"] = _values(ceiling(task, first, candidates))
        # in the very order that was reranked: a method that does nothing must gain nothing from ties
        untied = reordered(task, first, {}, candidates, "first-stage")
        body["first_stage"] = {"digest": digest, "metrics": _values(score(task, untied))}
    return {**body, "provenance": {k: v for k, v in origin.items() if k != "date"}}


def _costs(results: Sequence[SearchResult]) -> dict[str, Any]:
    used = sum((r.usage for r in results), Usage())
    return {
        "usage": dataclasses.asdict(used),
        "failed": sum(r.repairs.failed for r in results),
        "repaired": sum(r.repairs.repaired for r in results),
        "queries_degraded": sum(r.degraded for r in results),
    }


def _values(scores: Scores) -> dict[str, float]:
    return {name: m.value for name, m in scores.metrics.items()}


def write(path: Path, text: str) -> None:
    """Writes a file in one step. Raises `InputError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, text.encode())
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
