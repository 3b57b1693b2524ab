"""Feedback: the model's scores move the query's vector, and the index is searched again.

FIRST's second half: what the model likes among the first candidates says where others like it lie. Images
found beyond the first candidates are judged too and join the order. ``judge=verdicts`` judges as CoTRR does,
part by part; ``judge=first`` asks no model: the head of the first stage is believed instead (Rocchio's
pseudo-relevance feedback), the baseline to compare with. Without an index to search it orders what it was
given.

Relevance is P(yes) among yes and no, or the mean verdict (met 1, partly 0.5, missed 0); with ``judge=first``,
the cosine with the moved vector, negative ones counting 0.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

from mmrerank.limits import Count, Factor, ImageTokens, Rounds, UpTo
from mmrerank.messages import Ask, Reply, Retrieve
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank import comparisons
from mmrerank.rerank.aggregate import by_value, verdict_sum
from mmrerank.rerank.parts import decomposed, evaluated, whole_query
from mmrerank.rerank.relevance import chance, numbers
from mmrerank.types import Assessment, Candidate, Component, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("choice_logprobs", "retrieve")
FAMILY = "feedback"
PAPER = "FIRST, relevance feedback (arXiv 2406.15657); Rocchio (1971)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``found``: new images at most in each of ``rounds``. ``judge``: whose word moves the vector (the
    ``model``'s yes or no, its ``verdicts`` on the parts, or the ``first`` stage's).

    The vector moves by ``move`` towards liked images and by ``away`` from disliked ones, the query itself
    counting 1; with ``judge=first`` the first ``believed`` of the first stage are liked. ``image_tokens``
    bounds the visual tokens per image.
    """

    found: UpTo = 20
    rounds: Rounds = 1
    judge: Literal["model", "verdicts", "first"] = "model"
    move: Factor = 1.0
    away: Factor = 0.25
    believed: Count = 3
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
        if self.found < 0 or self.rounds < 0 or self.move < 0 or self.away < 0:
            raise ValueError("found, rounds, move and away must be 0 or more")
        if self.believed < 1:
            raise ValueError("believed must be at least 1")

    def needs(self) -> tuple[Capability, ...]:
        """Verdicts are written; the first stage's word takes no model."""
        if self.judge == "first":
            return ("retrieve",)
        return NEEDS if self.judge == "model" else ("generate", "retrieve")

    def calls(self, k: int) -> int:
        """The most questions to the model: ``k`` candidates and whatever is found."""
        if k < 2 or self.judge == "first":
            return 0
        return (self.judge == "verdicts") + k + self.found * self.rounds

    def hands_on(self, k: int) -> int:
        """The candidates, and whatever is found."""
        return k + self.found * self.rounds

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order."""
        return 0 if self.judge == "first" else k


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Judges, searches again, judges what is new; one candidate or none is returned without a question."""
    if len(ranking) < 2:
        return Outcome(ranking=ranking)
    if options.judge == "first":
        return (yield from _believed(query, ranking, options))
    scores: dict[str, float] = {}
    assessments: dict[str, Assessment] = {}
    repairs = Repairs()
    components: tuple[Component, ...] = ()
    if options.judge == "verdicts":
        parts, repairs = yield from decomposed(query, image_tokens=options.image_tokens)
        components = parts or whole_query(query)
    everything = list(ranking.candidates)
    new: Sequence[Candidate] = everything
    for turn in range(options.rounds + 1):
        values, judged, mended = yield from _judged(query, components, new, options)
        scores |= values
        assessments |= judged
        repairs += mended
        if turn == options.rounds or not scores or not options.found:
            break
        search = Retrieve(
            query=query, k=len(everything) + options.found, toward=_toward(scores, options), kind="feedback"
        )
        (reply,) = yield [search]
        known = {c.id for c in everything}
        new = [c for c in reply.found if c.id not in known][: options.found]
        everything += new
        if not new:
            break
    whole = Ranking(tuple(everything))
    after, _ = whole.reorder(by_value(whole.ids, scores))
    added = len(everything) - len(ranking)
    return Outcome(
        ranking=after,
        explanation=Explanation(
            components=components,
            assessments=assessments,
            reason=("ordered by the verdicts" if components else "ordered by P(yes)")
            + (f"; {added} found by searching again" if added else "; nothing new was found"),
            **numbers(after.ids, scores),
        ),
        repairs=repairs,
    )


def _judged(
    query: Query, components: tuple[Component, ...], group: Sequence[Candidate], options: Options
) -> Generator[list[Ask], list[Reply], tuple[dict[str, float], dict[str, Assessment], Repairs]]:
    """How well each image fits, 0 to 1, by id, what was said of it, and what had to be mended."""
    tokens = options.image_tokens
    if components:
        assessments, repairs = yield from evaluated(query, components, group, image_tokens=tokens)
        values = {i: v for i, a in assessments.items() if (v := verdict_sum(a)) is not None}
        return values, assessments, repairs
    asks = [comparisons.score(query, c, image_tokens=tokens) for c in group]
    replies = yield asks
    margins = {c.id: comparisons.read_score(r) for c, r in zip(group, replies, strict=True)}
    values = {i: chance(m) for i, m in margins.items() if m is not None}
    assessments = {i: Assessment(reason=f"judged to match with {p:.0%}") for i, p in values.items()}
    return values, assessments, Repairs(failed=len(group) - len(values))


def _toward(scores: dict[str, float], options: Options) -> dict[str, float]:
    """What each image adds to the query's vector: its share of all that is liked, less of all disliked."""
    liked = sum(scores.values()) or 1.0
    disliked = sum(1 - v for v in scores.values()) or 1.0
    return {i: options.move * v / liked - options.away * (1 - v) / disliked for i, v in scores.items()}


def _believed(query: Query, ranking: Ranking, options: Options) -> Judging:
    head = ranking.ids[: options.believed]
    asks: list[Ask] = [
        Retrieve(
            query=query,
            k=len(ranking) + options.found,
            toward={i: options.move / len(head) for i in head},
            kind="feedback",
        )
    ]
    (reply,) = yield asks
    known = set(ranking.ids)
    new = [c for c in reply.found if c.id not in known][: options.found]
    whole = Ranking((*ranking.candidates, *new))
    after, _ = whole.reorder([*(c.id for c in reply.found if c.id in known or c in new), *ranking.ids])
    return Outcome(
        ranking=after,
        explanation=Explanation(
            reason=f"searched again, moved towards the first {len(head)}; {len(new)} images are new",
            **numbers(after.ids, {c.id: c.score for c in reply.found if c.score is not None}),
        ),
    )
