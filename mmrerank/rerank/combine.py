"""Voting across models: one ranking out of several results for the same query.

Different models err differently: on published submissions, two strong ones name the same best image for
little more than half of the queries. What they agree on is worth more than what one of them says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from mmrerank.errors import UsageError
from mmrerank.rerank.aggregate import borda, by_value, rrf
from mmrerank.rerank.relevance import numbers, out_of
from mmrerank.results import SearchResult, build_hits, in_first_order
from mmrerank.types import Assessment, Explanation, Ranking, Repairs, Usage


def combine(results: Sequence[SearchResult], *, rule: Literal["borda", "rrf"] = "borda") -> SearchResult:
    """One result of several over the same query and candidates, such as of different models or methods.

    ``borda`` counts whom an image stands before, ``rrf`` sums 1 / (60 + rank) and lives off the top places.
    Equal ones keep first-stage order, which is that of the first result. Relevance is the share of the points
    that an image could have. Costs and repairs add up; the verdicts are the first result's. A search returns
    its ``k`` best only: with ``k`` as large as ``candidates`` all that were judged are there. Raises
    `UsageError` for no results, other queries or other candidates.

    >>> from mmrerank import Reranker
    >>> photos = [b"one", b"two"]
    >>> votes = [Reranker("none").rank("a boat", photos) for _ in range(3)]
    >>> [hit.id for hit in combine(votes)]
    ['0', '1']
    """
    given_results = isinstance(results, Sequence) and all(isinstance(r, SearchResult) for r in results)
    if not results or not given_results:
        raise UsageError("combine needs a list of at least one result, as search and rank return them")
    first = results[0]
    ids = [h.id for h in sorted(first.hits, key=lambda h: (h.first_rank is None, h.first_rank or 0))]
    for other in results[1:]:
        if other.query != first.query:
            raise UsageError("combine takes results for one query; these are for several")
        if sorted(h.id for h in other.hits) != sorted(ids):
            raise UsageError(
                "combine takes results over the same candidates; these differ (a search returns its k best: "
                "give k as large as candidates)"
            )
    lists = [[h.id for h in r.hits] for r in results]
    points = borda(lists) if rule == "borda" else rrf(lists)
    by_id = {h.id: h.candidate for h in first.hits}
    stood = {h.id: h.first_rank for h in first.hits}
    before = Ranking(tuple(by_id[i] for i in ids if stood[i] is not None))
    points = {i: round(p, 12) for i, p in points.items()}
    after = Ranking(tuple(by_id[i] for i in by_value(ids, points)))
    # what an image has that is first in every ranking
    most = next(iter((borda if rule == "borda" else rrf)([[*ids]] * len(lists)).values()), 0.0)
    given = first.explanation.assessments
    assessments = {i: replace(given.get(i, Assessment()), reason=f"ranks {_ranks(i, lists)}") for i in ids}
    explanation = Explanation(
        components=first.explanation.components,
        assessments=assessments,
        reason=f"{rule} over {len(results)} rankings ({', '.join(r.method for r in results)})",
        **numbers(after.ids, points if most else {}, out_of(most)),
    )
    # of a search that was cut at k, others stood between them
    hits = tuple(replace(h, first_rank=stood[h.id]) for h in build_hits(before, after, explanation))
    return SearchResult(
        query=first.query,
        hits=hits,
        first=in_first_order(hits, len(hits)),
        method="combine",
        explanation=explanation,
        usage=sum((r.usage for r in results), Usage()),
        repairs=sum((r.repairs for r in results), Repairs()),
        warnings=tuple(dict.fromkeys(w for r in results for w in r.warnings)),
    )


def _ranks(id_: str, lists: Sequence[Sequence[str]]) -> str:
    return ", ".join(str(ids.index(id_) + 1) for ids in lists)
