"""Reranks the queries of any benchmark by way of a journal, so that a kill costs little and changes nothing.

Results are always read back from the journal's plain data, in an uninterrupted run too. Computes no figure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmrerank.errors import UsageError
from mmrerank.evaluation.experiment.journal import Journal
from mmrerank.rerank.stopping import Stopped
from mmrerank.reranker import Reranker
from mmrerank.results import SearchResult, build_hits, in_first_order
from mmrerank.types import (
    Assessment,
    Candidate,
    Component,
    Explanation,
    Failure,
    Query,
    Ranking,
    Repairs,
    Usage,
    Verdict,
)

Item = tuple[Query, Ranking]
"""A query with an id, and its candidates in first-stage order."""
Progress = Callable[[int, int], None]
"""Called with (queries that are finished, queries in all)."""
PORTION = 8
"""Queries that share the model's batches and enter the journal together."""


def rerank_all(
    reranker: Reranker,
    items: Sequence[Item],
    journal: Journal,
    *,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> list[SearchResult]:
    """The results of ``items``, in their order; what the journal holds is not judged again.

    Queries are judged in portions of `PORTION` that are fixed by position and enter the journal as one:
    the last bits of a model's numbers depend on what shares its batch, and so a second start asks in the
    very batches in which an uninterrupted run does. A kill costs the portion under way.

    With ``retry_failed``, queries of which a judgement failed count as not finished. Stops
    before the portion in which the budget for all (``reranker.total``) was spent. A query
    that was not answered for a reason outside of it, such as a server that was gone for a while, is asked
    once more at the end. Traces are not kept. Raises `UsageError` when two queries have one id, `Stopped`
    when what is left would fail too, which then is not finished, and what a journal or a backend raises.
    """
    done = set(finished(items, journal, retry_failed=retry_failed))
    unreached: set[str] = set()
    if progress:
        progress(len(done), len(items))
    for last in (False, True):
        for start in range(0, len(items), PORTION):
            portion = [(q, r) for q, r in items[start : start + PORTION] if q.id not in done]
            portion = [(q, r) for q, r in portion if (q.id in unreached) is last]
            if not portion:
                continue
            found = _judged(reranker, portion, journal, len(items))
            if reranker.total is not None and reranker.total.exhausted:
                # what a spent budget left unasked would stand in the figures as failures
                return read_back(reranker.name, items, journal)
            if not last:
                unreached |= {r.query.id for r in found if r.unreached}
            good = {r.query.id: to_plain(r) for r in found if last or not r.unreached}
            journal.add(good)
            done |= good.keys()
            if progress:
                progress(len(done), len(items))
    return read_back(reranker.name, items, journal)


def _judged(reranker: Reranker, portion: Sequence[Item], journal: Journal, count: int) -> list[SearchResult]:
    """The results of ``portion``; where the run is stopped, those that were complete are journalled."""
    try:
        return reranker.rank_batch(portion)
    except Stopped as stopped:
        journal.add({r.query.id: to_plain(r) for r in stopped.results.values()})
        kept = f"{len(journal.results)} of {count} queries are finished in {journal.path}"
        raise Stopped(
            stopped.reason, f"{stopped.why}; {kept}, and the same command goes on from there"
        ) from None


def read_back(method: str, items: Sequence[Item], journal: Journal) -> list[SearchResult]:
    """The results of those of ``items`` that the journal holds, in their order."""
    return [
        from_plain(journal.results[query.id], query, ranking, method)
        for query, ranking in items
        if query.id in journal.results
    ]


def finished(items: Sequence[Item], journal: Journal, *, retry_failed: bool = False) -> dict[str, Usage]:
    """What each finished query of ``items`` cost, by its id; arguments and errors as in `rerank_all`."""
    ids = [query.id for query, _ in items]
    if len(set(ids)) != len(ids) or "" in ids:
        raise UsageError("queries that are evaluated need ids, each its own")
    results = {i: journal.results[i] for i in ids if i in journal.results}
    return {
        i: Usage(**r["usage"]) for i, r in results.items() if not (retry_failed and r["repairs"]["failed"])
    }


def to_plain(result: SearchResult) -> dict[str, Any]:
    """Everything about ``result`` that the query and its candidates do not say, except the trace."""
    explanation = result.explanation
    return {
        "order": [h.id for h in result.hits],
        "found": {h.id: h.score for h in result.hits if h.first_rank is None},
        "components": [dataclasses.asdict(c) for c in explanation.components],
        "assessments": {i: dataclasses.asdict(a) for i, a in explanation.assessments.items()},
        "reason": explanation.reason,
        "scores": dict(explanation.scores),
        "relevance": dict(explanation.relevance),
        "usage": dataclasses.asdict(result.usage),
        "repairs": dataclasses.asdict(result.repairs),
        "warnings": list(result.warnings),
        "failures": [dataclasses.asdict(f) for f in result.failures],
    }


def from_plain(body: Mapping[str, Any], query: Query, ranking: Ranking, method: str) -> SearchResult:
    """The inverse of `to_plain`, given the query and the candidates that were reranked.

    Of images that a method found besides, ids and scores are all that is kept.
    """
    found = [Candidate(id=i, text="", score=s) for i, s in body.get("found", {}).items()]
    after, _ = Ranking((*ranking.candidates, *found)).reorder(body["order"])
    explanation = Explanation(
        components=tuple(Component(**c) for c in body["components"]),
        assessments={
            i: Assessment(**{**a, "verdicts": tuple(Verdict(**v) for v in a["verdicts"])})
            for i, a in body["assessments"].items()
        },
        reason=body["reason"],
        scores=body.get("scores", {}),
        relevance=body.get("relevance", {}),
    )
    hits = build_hits(ranking, after, explanation)
    return SearchResult(
        query=query,
        hits=hits,
        first=in_first_order(hits, len(hits)),
        method=method,
        explanation=explanation,
        usage=Usage(**body["usage"]),
        repairs=Repairs(**body["repairs"]),
        warnings=tuple(body["warnings"]),
        failures=tuple(Failure(**f) for f in body.get("failures", ())),
    )
