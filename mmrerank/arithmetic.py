"""Query arithmetic: words and images that are added to a query or taken away, each with a weight.

A first stage searches with the weighted sum of the unit vectors of the query and of its terms, scaled to
length 1. A method reads words and looks at images, and knows no weights: `folded` is what it is asked about.
After rclip (https://github.com/yurijmikhalevich/rclip): ``rclip horse + stripes - 2:grass``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmrerank.errors import UsageError
from mmrerank.messages import Retrieve, Stored
from mmrerank.ports import Embedder, Retriever, Vectors
from mmrerank.types import Candidate, Query, Term

LEAST = 1e-3
"""The least length of the sum, as a share of the weights: below it only rounding would be searched for."""


def query_vectors(embedder: Embedder, queries: Sequence[Query]) -> Vectors:
    """Unit vectors ``(n, dim)`` of ``queries`` with their terms, in one call of ``embedder``.

    Raises `UsageError` where a query and its terms cancel out, and what the embedder raises.
    """
    if not any(q.terms for q in queries):
        return embedder.embed_queries(queries)
    asked = [part for q in queries for part in (replace(q, terms=()), *(_alone(t, q) for t in q.terms))]
    vectors = np.asarray(embedder.embed_queries(asked), dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.where(lengths > 0, lengths, 1.0)
    rows, at = [], 0
    for query in queries:
        weights = np.array([1.0, *(t.weight for t in query.terms)])
        rows.append(_summed(query, weights, units[at : at + len(weights)]))
        at += len(weights)
    return np.stack(rows).astype(np.float32)


def _alone(term: Term, query: Query) -> Query:
    """A term as a query of its own, asked with the query's instruction."""
    images = () if term.image is None else (term.image,)
    return Query(text=term.text, images=images, instruction=query.instruction)


def _summed(query: Query, weights: NDArray[np.float64], units: NDArray[np.float64]) -> NDArray[np.float64]:
    total = weights @ units
    length = float(np.linalg.norm(total))
    if length < LEAST * float(np.abs(weights).sum()):
        name = f"query {query.id!r}" if query.id else "the query"
        raise UsageError(
            f"{name} and its terms cancel out, so nothing is left to search for; leave a term out or give it "
            "another weight"
        )
    summed: NDArray[np.float64] = total / length
    return summed


def folded(query: Query) -> Query:
    """``query`` as methods are asked about it: what is added joins its words and images, words that are taken
    away are excluded. Images that are taken away, and weights, are left to the first stage.

    >>> folded(Query(text="a horse", terms=(Term(text="stripes"), Term(text="grass", weight=-2))))
    Query(text='a horse, stripes', images=(), exclude=('grass',), turns=(), instruction='', id='', terms=())
    """
    if not query.terms:
        return query
    added = [t for t in query.terms if t.weight > 0]
    words = [query.text, *(t.text for t in added)]
    return replace(
        query,
        text=", ".join(w.strip() for w in words if w.strip()),
        images=(*query.images, *(t.image for t in added if t.image is not None)),
        exclude=(*query.exclude, *(t.text for t in query.terms if t.weight < 0 and t.text)),
        terms=(),
    )


def remarks(query: Query, method: str) -> list[str]:
    """What of the terms ``method`` was not told, as sentences."""
    hidden = sum(t.weight < 0 and t.image is not None for t in query.terms)
    weighed = sum(abs(t.weight) != 1 for t in query.terms)
    found = []
    if hidden:
        images = "1 image that is" if hidden == 1 else f"{hidden} images that are"
        found.append(f"{method} was not shown {images} taken away: only the first stage knows of it")
    if weighed:
        weights = "1 weight" if weighed == 1 else f"{weighed} weights"
        found.append(f"{method} knows nothing of {weights} of the query: only the first stage does")
    return found


@dataclass(frozen=True, kw_only=True)
class Unfolded:
    """A first stage that is asked about queries as given, where a method asks with `folded` ones.

    ``given`` pairs what the methods got with what was given. A method's own words are searched as they are.
    """

    retriever: Retriever
    given: Sequence[tuple[Query, Query]]

    def retrieve(self, requests: Sequence[Retrieve]) -> list[tuple[Candidate, ...]]:
        """`mmrerank.ports.Retriever.retrieve`."""
        return self.retriever.retrieve([replace(r, query=self._whole(r.query)) for r in requests])

    def stored(self, request: Stored) -> tuple[Vectors, ...]:
        """`mmrerank.ports.Retriever.stored`."""
        return self.retriever.stored(replace(request, query=self._whole(request.query)))

    def _whole(self, query: Query | None) -> Query | None:
        # the very object, for another query of the batch may have the same words
        return next((whole for told, whole in self.given if told is query), query)


def unfolded(retriever: Retriever | None, told: Sequence[Query], given: Sequence[Query]) -> Retriever | None:
    """``retriever``, asked about the queries ``given`` where a method asks about those it was ``told``."""
    pairs = [(t, g) for t, g in zip(told, given, strict=True) if t is not g]
    return Unfolded(retriever=retriever, given=pairs) if retriever is not None and pairs else retriever
