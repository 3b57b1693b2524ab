"""E2Rank: the query's vector is made again, read after the candidates, and compared with their vectors.

``listwise`` puts the first ``window`` images and the query into one prompt and embeds that (E2Rank); models
that were not trained for it may not gain. ``rocchio`` needs no training: the query's vector is moved towards
the candidates that lie nearest to it (pseudo-relevance feedback). A candidate's vector does not depend on the
query: where the index's embedder is the model itself, the index has it already, and with a cache it is made
once. Relevance is the cosine, negative ones counting 0.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmrerank.limits import Count, Factor, ImageTokens
from mmrerank.messages import Ask, Reply, Stored
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank.aggregate import by_value
from mmrerank.rerank.relevance import numbers
from mmrerank.rerank.states import Matrix, embed_candidate, embed_query, read_vector
from mmrerank.types import Assessment, Candidate, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("embed",)
FAMILY = "embedding"
PAPER = "E2Rank (arXiv 2510.22733); Rocchio (1971)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``mode``: how the query's vector takes the candidates in. ``window``: how many the prompt shows.

    ``vectors``: whose they are. ``index``: those that the index holds, and its embedder reads the query; no
    language model is asked. ``model``: the language model makes all of them. ``auto``: the index's, where its
    embedder is the language model itself, else the model's.

    For ``rocchio``: ``norm(keep * q + move * sum of softmax(score / temperature) * d)``. ``image_tokens``
    bounds the visual tokens per image.
    """

    mode: Literal["listwise", "rocchio"] = "listwise"
    vectors: Literal["auto", "index", "model"] = "auto"
    window: Count = 20
    keep: Factor = 1.0
    move: Factor = 0.5
    temperature: Factor = 0.05
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError("window must be at least 1")
        if self.temperature <= 0 or self.keep < 0 or self.move < 0:
            raise ValueError("temperature must be positive, keep and move 0 or more")

    def needs(self) -> tuple[Capability, ...]:
        """No language model, where all vectors are the index's."""
        return ("retrieve",) if self.vectors == "index" else NEEDS

    def calls(self, k: int) -> int:
        """The most vectors for ``k`` candidates: theirs, which an index or a cache keeps, and the query's."""
        return 0 if k < 2 or self.vectors == "index" else k + 1


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Embeds in one round; one candidate or none is returned without a question."""
    if len(ranking) < 2:
        return Outcome(ranking=ranking)
    group = ranking.candidates[: options.window] if options.mode == "listwise" else ()
    read = yield from _vectors(query, ranking, group, options)
    if not read:
        return Outcome(ranking=ranking, repairs=Repairs(failed=1))
    asked, *found = read
    vectors = {i: v for i, v in zip(ranking.ids, found, strict=True) if v is not None}
    values: dict[str, float] = {}
    if asked is not None and vectors:
        if options.mode == "rocchio":
            asked = moved(asked, np.stack(list(vectors.values())), options)
        values = {i: round(float(v @ asked), 6) for i, v in vectors.items()}
    after, _ = ranking.reorder(by_value(ranking.ids, values))
    assessments = {i: Assessment(reason=f"cosine {v:.3f}") for i, v in values.items()}
    failed = (asked is None) + len(ranking) - len(vectors)
    how = "read after the candidates" if options.mode == "listwise" else "moved towards the nearest"
    return Outcome(
        ranking=after,
        explanation=Explanation(
            assessments=assessments, reason=f"nearest to the search, {how}", **numbers(after.ids, values)
        ),
        repairs=Repairs(failed=failed),
    )


def _vectors(
    query: Query, ranking: Ranking, group: Sequence[Candidate], options: Options
) -> Generator[list[Ask], list[Reply], list[Matrix | None]]:
    """The query's vector and one for each candidate: the index's where that is wanted, else the model's."""
    if options.vectors != "model":
        optional = options.vectors == "auto"
        shown = tuple(group)
        (reply,) = yield [
            Stored(query=query, shown=ranking.ids, group=shown, optional=optional, kind="stored")
        ]
        if reply.states or not optional:
            return [*reply.states]
    replies = yield [
        embed_query(query, group, image_tokens=options.image_tokens),
        *(embed_candidate(c, query, image_tokens=options.image_tokens) for c in ranking),
    ]
    return [read_vector(r) for r in replies]


def moved(query: Matrix, candidates: Matrix, options: Options) -> Matrix:
    """The unit vector ``(d,)`` of ``query`` ``(d,)`` moved towards ``candidates`` ``(n, d)``."""
    scores = (candidates @ query).astype(np.float64) / options.temperature
    weights = np.exp(scores - scores.max())
    towards = options.keep * query + options.move * (weights / weights.sum()) @ candidates
    unit: Matrix = (towards / max(float(np.linalg.norm(towards)), 1e-12)).astype(np.float32)
    return unit
