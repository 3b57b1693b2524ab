"""The first stage of an evaluation, asked again by methods that search in the middle of a ranking.

A query finds what its benchmark lets it find, under the benchmark's names: of the gallery or of its own list,
without what its protocol leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmrerank.arithmetic import query_vectors
from mmrerank.benchmark import APART, Prepared, Task
from mmrerank.evaluation.experiment.first_stage import Searcher
from mmrerank.evaluation.experiment.make_first_stage import MadeFirstStage
from mmrerank.evaluation.experiment.two_stage import candidate_of
from mmrerank.index.index import ImageIndex
from mmrerank.messages import Retrieve, Stored
from mmrerank.ports import Chat, Retriever, Vectors
from mmrerank.search import ImageSearch
from mmrerank.stored import stored_vectors
from mmrerank.types import Candidate


def search_again(
    data: Prepared, task: Task, first: MadeFirstStage | None, images: Path | None, chat: str | Chat = ""
) -> Retriever | None:
    """What methods that search again ask: a first stage made here; None for lists that were given.

    ``chat`` is the language model, which may be the model that embeds.
    """
    if first is None or first.index is None:
        return None
    if data.index is not None:  # made for this evaluation: a query may find all of it
        return ImageSearch(first.index, embedder=first.embedder, chat=chat or None)
    return _TaskSearch(task, first, first.index, images, chat)


class _TaskSearch(Retriever):
    """Searches the documents of a task."""

    def __init__(
        self, task: Task, first: MadeFirstStage, index: ImageIndex, images: Path | None, chat: str | Chat
    ) -> None:
        self._task, self._first, self._index, self._images = task, first, index, images
        self._chat = chat
        self._names = dict(first.names)
        few = {q: tuple(sorted(d)) for q, d in task.apart.items()}
        self._searchers = {
            "": Searcher(task, index, self._names),
            APART: Searcher(replace(task, lists=few), index, self._names),
        }

    def retrieve(self, requests: Sequence[Retrieve]) -> list[tuple[Candidate, ...]]:
        """The documents nearest to each request's query, moved where it says so."""
        queries = [r.query for r in requests if r.query is not None]
        vectors = query_vectors(self._first.embedder, queries)
        return [
            self._found(request, query.id, vector)
            for request, query, vector in zip(requests, queries, vectors, strict=True)
        ]

    def stored(self, request: Stored) -> tuple[Vectors, ...]:
        """The query's vector and the index's own of documents."""
        return stored_vectors(request, self._index, self._first.embedder, self._chat, self._names)

    def _found(self, request: Retrieve, name: str, vector: Vectors) -> tuple[Candidate, ...]:
        moved = vector.astype(np.float64)
        known = {self._names[d]: w for d, w in request.toward.items() if d in self._names}
        if known:
            weights = np.array(list(known.values()))
            moved += weights @ self._index.vectors(list(known)).astype(np.float64)
        query, _, part = name.partition("#")
        searcher = self._searchers.get(part, self._searchers[""])
        (ranked,) = searcher.search([query], moved.astype(np.float32)[None], request.k)
        return tuple(
            candidate_of(self._task, d, s, self._first.locate)
            for d, s in zip(ranked.ids, ranked.scores, strict=True)
        )
