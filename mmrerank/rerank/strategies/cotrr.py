"""CoTRR: take the query apart, judge each image against each part, order them all (freshfish15/CoTRR).

``staged`` asks three times: deconstruct (text and reference images only), evaluate (every image against
every component), order (the model's own order over all candidates, shown side by side with what was noted
about them). ``single`` asks once, with the same reasoning standing before the order in the reply. The paper's
ablations are switches. Unlike the released code, a failed judgement never loses an image: it keeps its
first-stage rank. Relevance is the model's score in the order, 0 to 99, over 99; of an image that was not
shown again its mean verdict, and with ``order=sum`` always that.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

from mmrerank.limits import Bounds, Count, ImageTokens, Share, Thoughts, UpTo
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank import judgements
from mmrerank.rerank.aggregate import by_value, keep_slots, verdict_sum
from mmrerank.rerank.fitting import Found, Ordering, at_once, ordered
from mmrerank.rerank.parts import decomposed, evaluated, whole_query
from mmrerank.rerank.relevance import falling
from mmrerank.rerank.replies import Reading
from mmrerank.rerank.rooms import Switch, settled
from mmrerank.rerank.thrift import Thrift, scored
from mmrerank.types import Assessment, Candidate, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("generate",)
FAMILY = "listwise"
PAPER = "CoTRR, chain-of-thought re-ranking (freshfish15/CoTRR)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """How CoTRR asks.

    ``mode``: ``staged`` or ``single``. ``order``: ``model`` lets the model order the candidates, ``sum``
    computes the order from the verdicts (ablation). ``deconstruct``/``evaluate`` false leave that phase
    out (ablations: evaluate the query as a whole / order by looking, without verdicts; in ``single``
    mode, leaving either out asks for the order alone).
    ``group_size`` images stand in one evaluation question. ``order_images`` shows the images again, side
    by side, when ordering: ``true`` all in one question, ``false`` none (ablation: the notes alone), ``auto``
    all where one question holds them, else the finalists (all whose mean verdict is that of place ``top`` or
    better), in windows where those do not fit either; a model's row in the catalogue may settle ``auto``.
    ``passes=2`` asks for the order over the reversed list too and averages the scores, so that a liking for
    places cancels: one question more. ``think`` is how many tokens of thoughts may stand before the order; a
    model that thinks on its own then may.
    ``alpha`` (1 keeps all) and ``beta`` (0 never stops) leave out evaluations as in
    `mmrerank.rerank.thrift.Thrift`, by the mean of the verdicts; what was not evaluated keeps its place
    behind the rest. ``image_tokens`` bounds the visual tokens per image.
    """

    mode: Literal["staged", "single"] = "staged"
    order: Literal["model", "sum"] = "model"
    deconstruct: bool = True
    evaluate: bool = True
    group_size: Count = 1
    order_images: Switch = "auto"
    passes: Annotated[int, Bounds(1, 2)] = 1
    think: Thoughts = 0
    alpha: Share = 1.0
    beta: UpTo = 0
    top: Count = 10
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
        if self.group_size < 1:
            raise ValueError("group_size must be at least 1")
        if self.order == "sum" and (self.mode == "single" or not self.evaluate):
            raise ValueError("order=sum needs mode=staged and evaluate=true: it sums verdicts")
        if isinstance(self.order_images, bool):
            object.__setattr__(self, "order_images", str(self.order_images).lower())
        Thrift(alpha=self.alpha, beta=self.beta, top=self.top)
        if self.thrifty and (self.mode == "single" or not self.evaluate or self.group_size > 1):
            raise ValueError("alpha and beta need mode=staged, evaluate=true and group_size=1")

    @property
    def thrifty(self) -> bool:
        """Whether some evaluations may be left out."""
        return self.alpha < 1 or self.beta > 0

    def calls(self, k: int) -> int:
        """Questions for ``k`` candidates; an upper bound where evaluations may be left out.

        More where a question to the model does not hold all images: windows instead of one question to order
        them, and one for each size that is refused.
        """
        if k < 2:
            return 0
        if self.mode == "single":
            return self.passes
        evaluating = -(-k // self.group_size) if self.evaluate else 0
        return self.deconstruct + evaluating + (self.passes if self.order == "model" else 0)

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order."""
        return 0 if self.thrifty else k


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Runs the chosen mode; one candidate or none is returned without a question."""
    if len(ranking) < 2:
        return Outcome(ranking=ranking)
    if options.mode == "single":
        return (yield from _single(query, ranking, options))
    return (yield from _staged(query, ranking, options))


def _single(query: Query, ranking: Ranking, options: Options) -> Judging:
    whole = options.deconstruct and options.evaluate

    def question(group: Sequence[Candidate]) -> Ask:
        return judgements.single(
            query, group, think=whole, more=options.think, image_tokens=options.image_tokens
        )

    how = Ordering(
        question=question,
        read=judgements.read_single if whole else judgements.read_order,
        top=options.top,
        passes=options.passes,
    )
    found = yield from _by_sight(ranking.candidates, how, options)
    order, _ = ranking.reorder(found.order)
    told = next((r for r in found.readings if r.components), Reading(status="ok"))
    return Outcome(
        ranking=order,
        explanation=_numbered(
            Explanation(components=told.components, assessments=told.assessments, reason=found.reason),
            order,
            found,
        ),
        repairs=found.repairs,
        notes=found.notes,
    )


def _by_sight(
    candidates: Sequence[Candidate], how: Ordering, options: Options
) -> Generator[list[Ask], list[Reply], Found]:
    """`ordered` within what the model holds, or, where the option or the model's row decides, all at once."""
    free = settled("order_images", options.order_images) == "auto"
    return (yield from (ordered if free else at_once)(candidates, how))


def _staged(query: Query, ranking: Ranking, options: Options) -> Judging:
    repairs = Repairs()
    components = whole_query(query)
    if options.deconstruct:
        parts, repairs = yield from decomposed(query, image_tokens=options.image_tokens)
        # without components the query itself is the one thing to check
        components = parts or components

    assessments: dict[str, Assessment] = {}

    def scoring(group: Sequence[Candidate]) -> Generator[list[Ask], list[Reply], list[float | None]]:
        nonlocal repairs
        judged, mended = yield from evaluated(
            query, components, group, group_size=options.group_size, image_tokens=options.image_tokens
        )
        repairs += mended
        assessments.update(judged)
        return [verdict_sum(judged[c.id]) if c.id in judged else None for c in group]

    if options.evaluate:
        thrift = Thrift(alpha=options.alpha, beta=options.beta, top=options.top)
        yield from scored(ranking, thrift, scoring)

    explanation = Explanation(components=components, assessments=assessments)
    values = {i: s for i, a in assessments.items() if (s := verdict_sum(a)) is not None}
    if options.order == "sum":
        order, _ = ranking.reorder(by_value(ranking.ids, values))
        explanation = replace(explanation, reason="ordered by the mean of the verdicts")
        explanation = _numbered(explanation, order, Found(scores=values, marks=values))
        return Outcome(ranking=order, explanation=explanation, repairs=repairs)

    # what could not be judged is left out of the question and keeps its place
    judged = [c for c in ranking if c.id in assessments or not options.evaluate]
    if not judged:
        return Outcome(ranking=ranking, explanation=explanation, repairs=repairs)
    found = yield from _compared(query, judged, explanation, values, options)
    order = ranking
    if found.order:
        missing = [c.id for c in judged if c.id not in set(found.order)]
        order, _ = ranking.reorder(keep_slots(ranking.ids, [*found.order, *missing]))
    explanation = replace(explanation, reason=_reason(found.reason, order, assessments))
    return Outcome(
        ranking=order,
        explanation=_numbered(explanation, order, found),
        repairs=repairs + found.repairs,
        notes=found.notes,
    )


def _compared(
    query: Query,
    candidates: Sequence[Candidate],
    known: Explanation,
    values: Mapping[str, float],
    options: Options,
) -> Generator[list[Ask], list[Reply], Found]:
    """The model's order of ``candidates``, given what is known of them."""

    def question(group: Sequence[Candidate], *, look: bool) -> Ask:
        return judgements.order(
            query,
            known.components,
            group,
            known.assessments,
            show_images=look,
            think=options.think,
            image_tokens=options.image_tokens,
        )

    # without verdicts there is nothing to order by but a look
    looks = settled("order_images", options.order_images) != "false" or not options.evaluate
    how = Ordering(
        question=partial(question, look=looks),
        read=judgements.read_order,
        values=values,
        top=options.top,
        passes=options.passes,
        blind=partial(question, look=False) if options.evaluate else None,
    )
    return (yield from _by_sight(candidates, how, options))


def _numbered(explanation: Explanation, order: Ranking, found: Found) -> Explanation:
    """``explanation`` with the numbers of ``found``.

    ``scores`` are the model's own (0 to 99, the mean of both passes); an image that was not shown again has
    its mean verdict, moved below those. ``relevance`` is the score over 99, or that mean verdict, lowered to
    that of an image above where it is higher.
    """
    return replace(explanation, scores=found.scores, relevance=falling(order.ids, found.marks))


def _reason(reason: str, order: Ranking, assessments: Mapping[str, Assessment]) -> str:
    """The model's sentence, or where it gave none about the image that came first, what its verdicts say."""
    first = order.ids[0]
    if reason or first not in assessments:
        return reason
    verdicts = [v.verdict for v in assessments[first].verdicts]
    return f"{first} comes first: {verdicts.count('met')} of {len(verdicts)} parts met"
