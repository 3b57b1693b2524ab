"""The laws of `mmrerank.rerank.relevance`, for the result of any method."""

from __future__ import annotations

from itertools import pairwise

from mmrerank.results import SearchResult


def check_numbers(result: SearchResult) -> None:
    """Fails where a number is out of range, rises down the ranking, or is of something that is not in it."""
    for numbers in (result.explanation.relevance, result.explanation.scores):
        known = [numbers[h.id] for h in result if h.id in numbers]
        assert all(one >= other for one, other in pairwise(known)), (result.method, known)
        assert numbers.keys() <= {h.id for h in result}
    assert all(h.relevance == result.explanation.relevance.get(h.id) for h in result)
    assert all(0 <= r <= 1 for r in result.explanation.relevance.values())
