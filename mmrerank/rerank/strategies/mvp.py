"""MVP: several views of each candidate, one for each part of the query, compared with that view's anchor.

The query is taken apart; for each part, an image's patches are pooled by how near they are to it (its view),
and the anchor is the part's own vector moved towards the views of the candidates that fit it best. The mean
cosine of a candidate's views with their anchors is its score, so the order of the candidates does not matter.
Reference images of the query are one more part.
The paper trains encoder and anchors; this is its zero-training counterpart. Relevance is that mean cosine,
negative ones counting 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmrerank.limits import Factor, ImageTokens
from mmrerank.messages import Ask
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank.aggregate import by_value
from mmrerank.rerank.parts import decomposed, whole_query
from mmrerank.rerank.relevance import numbers
from mmrerank.rerank.states import Matrix, read_tokens, tokens_of_candidate, tokens_of_query, tokens_of_text
from mmrerank.rerank.verdicts import MAX_COMPONENTS
from mmrerank.types import Assessment, Component, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("generate", "token_embeddings")
FAMILY = "late interaction"
PAPER = "MVP, multi-view passage reranking (arXiv 2509.07485)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``deconstruct`` asks for the query's parts; without it, the whole query is the only view.

    ``temperature`` of the pooling of patches and of the anchors; ``move`` is how far an anchor goes towards
    the candidates that fit best. ``image_tokens`` bounds the visual tokens per image.
    """

    deconstruct: bool = True
    temperature: Factor = 0.02
    move: Factor = 0.5
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.move < 0:
            raise ValueError("temperature must be positive and move 0 or more")

    def needs(self) -> tuple[Capability, ...]:
        """Only taking apart is written."""
        return NEEDS if self.deconstruct else ("token_embeddings",)

    def calls(self, k: int) -> int:
        """The most questions: the parts, an encoding of each and of references, and one of each candidate."""
        if k < 2:
            return 0
        parts = MAX_COMPONENTS if self.deconstruct else 1
        return int(self.deconstruct) + parts + 1 + k


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Takes apart, encodes and compares; one candidate or none is returned without a question."""
    if len(ranking) < 2:
        return Outcome(ranking=ranking)
    repairs = Repairs()
    components = whole_query(query)
    if options.deconstruct:
        parts, repairs = yield from decomposed(query, image_tokens=options.image_tokens)
        components = parts or components
    views: list[Component] = []
    asks: list[Ask] = []
    # what must not appear has no view to be near to; it is assessments, and left to other methods
    for component in components:
        # words that stand for a reference image say nothing of what it shows
        if not component.excluded and (query.words or components != whole_query(query)):
            views.append(component)
            asks.append(tokens_of_text(component.text, query))
    if query.images:
        views.append(Component(id="reference", kind="subject", text="the reference image"))
        asks.append(tokens_of_query(query, image_tokens=options.image_tokens))
    if not views:
        reason = "nothing is searched for that has to be there: the first-stage order stands"
        explanation = Explanation(components=tuple(components), reason=reason)
        return Outcome(ranking=ranking, explanation=explanation, repairs=repairs)
    asks += [tokens_of_candidate(c, query, image_tokens=options.image_tokens) for c in ranking]
    replies = yield asks
    found = [read_tokens(r) for r in replies]
    asked = {c.id: f.mean(0) for c, f in zip(views, found[: len(views)], strict=True) if f is not None}
    images = {i: f for i, f in zip(ranking.ids, found[len(views) :], strict=True) if f is not None}
    repairs += Repairs(failed=sum(f is None for f in found))
    values: dict[str, float] = {}
    nearness: dict[str, dict[str, float]] = {i: {} for i in images}
    if asked and images:
        per_view = []
        for part, vector in asked.items():
            scores = view_scores(vector, list(images.values()), options)
            per_view.append(scores)
            for id_, score in zip(images, scores, strict=True):
                nearness[id_][part] = float(score)
        mean = np.mean(per_view, axis=0)
        values = {i: round(float(v), 6) for i, v in zip(images, mean, strict=True)}
    after, _ = ranking.reorder(by_value(ranking.ids, values))
    assessments = {
        i: Assessment(
            reason=f"{values[i]:.3f}: "
            + ", ".join(f"{c.text} {nearness[i][c.id]:.2f}" for c in views if c.id in nearness[i])
        )
        for i in values
    }
    return Outcome(
        ranking=after,
        explanation=Explanation(
            components=tuple(components),
            assessments=assessments,
            reason="nearest, over the query's parts, to what the best candidates show of each",
            **numbers(after.ids, values),
        ),
        repairs=repairs,
    )


def view_scores(part: Matrix, images: list[Matrix], options: Options) -> NDArray[np.float64]:
    """Cosine ``(n,)`` of each image's view of ``part`` ``(d,)`` with the anchor.

    ``images`` are ``(patches, d)`` each.
    """
    wanted = _unit(part.astype(np.float64))
    pooled = np.stack([_unit(_soft(i @ wanted, options.temperature) @ i) for i in images])
    towards = _soft(pooled @ wanted, options.temperature) @ pooled
    anchor = _unit(wanted + options.move * towards)
    scores: NDArray[np.float64] = pooled @ anchor
    return scores


def _soft(scores: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    weights = np.exp((scores - scores.max()) / temperature)
    soft: NDArray[np.float64] = weights / weights.sum()
    return soft


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return unit
