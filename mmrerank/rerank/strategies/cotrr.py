"""CoTRR: take the query apart, judge each image against each part, order them all (freshfish15/CoTRR).

``staged`` asks three times: deconstruct (text and reference images only), evaluate (every image against
every component), order (the model's own order over all candidates and their evaluations). ``single`` asks
once, with the same reasoning standing before the order in the reply. The paper's ablations are switches.
Unlike the released code, a failed judgement never loses an image: it keeps its first-stage rank.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mmrerank.limits import Count, ImageTokens, Share, UpTo
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank import judgements
from mmrerank.rerank.aggregate import by_value, keep_slots, verdict_sum
from mmrerank.rerank.parts import decomposed, evaluated, whole_query
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
    ``group_size`` images stand in one evaluation question. ``order_images`` shows the images again when
    ordering. ``alpha`` (1 keeps all) and ``beta`` (0 never stops) leave out evaluations as in
    `mmrerank.rerank.thrift.Thrift`, by the mean of the verdicts; what was not evaluated keeps its place
    behind the rest. ``image_tokens`` bounds the visual tokens per image.
    """

    mode: Literal["staged", "single"] = "staged"
    order: Literal["model", "sum"] = "model"
    deconstruct: bool = True
    evaluate: bool = True
    group_size: Count = 1
    order_images: bool = False
    alpha: Share = 1.0
    beta: UpTo = 0
    top: Count = 10
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
        if self.group_size < 1:
            raise ValueError("group_size must be at least 1")
        if self.order == "sum" and (self.mode == "single" or not self.evaluate):
            raise ValueError("order=sum needs mode=staged and evaluate=true: it sums verdicts")
        Thrift(alpha=self.alpha, beta=self.beta, top=self.top)
        if self.thrifty and (self.mode == "single" or not self.evaluate or self.group_size > 1):
            raise ValueError("alpha and beta need mode=staged, evaluate=true and group_size=1")

    @property
    def thrifty(self) -> bool:
        """Whether some evaluations may be left out."""
        return self.alpha < 1 or self.beta > 0

    def calls(self, k: int) -> int:
        """Questions for ``k`` candidates; an upper bound where evaluations may be left out."""
        if k < 2:
            return 0
        if self.mode == "single":
            return 1
        evaluating = -(-k // self.group_size) if self.evaluate else 0
        return self.deconstruct + evaluating + (self.order == "model")

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
    think = options.deconstruct and options.evaluate
    ask = judgements.single(query, ranking.candidates, think=think, image_tokens=options.image_tokens)
    (reply,) = yield [ask]
    read = (judgements.read_single if think else judgements.read_order)(reply, ask)
    order, _ = ranking.reorder(read.order)
    return Outcome(
        ranking=order,
        explanation=Explanation(components=read.components, assessments=read.assessments, reason=read.reason),
        repairs=read.repairs,
    )


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
    if options.order == "sum":
        values = {i: s for i, a in assessments.items() if (s := verdict_sum(a)) is not None}
        order, _ = ranking.reorder(by_value(ranking.ids, values))
        explanation = replace(explanation, reason="ordered by the mean of the verdicts")
        return Outcome(ranking=order, explanation=explanation, repairs=repairs)

    # what could not be judged is left out of the question and keeps its place
    judged = [c for c in ranking if c.id in assessments or not options.evaluate]
    if not judged:
        return Outcome(ranking=ranking, explanation=explanation, repairs=repairs)
    ask = judgements.order(
        query,
        components,
        judged,
        assessments,
        show_images=options.order_images or not options.evaluate,
        image_tokens=options.image_tokens,
    )
    (reply,) = yield [ask]
    read = judgements.read_order(reply, ask)
    order = ranking
    if read.order:
        settled = [*read.order, *(c.id for c in judged if c.id not in set(read.order))]
        order, _ = ranking.reorder(keep_slots(ranking.ids, settled))
    return Outcome(
        ranking=order,
        explanation=replace(explanation, reason=_reason(read.reason, order, assessments)),
        repairs=repairs + read.repairs,
    )


def _reason(reason: str, order: Ranking, assessments: Mapping[str, Assessment]) -> str:
    """The model's sentence, or where it gave none about the image that came first, what its verdicts say."""
    first = order.ids[0]
    if reason or first not in assessments:
        return reason
    verdicts = [v.verdict for v in assessments[first].verdicts]
    return f"{first} comes first: {verdicts.count('met')} of {len(verdicts)} parts met"
