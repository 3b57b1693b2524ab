"""UniME-V2-Reranker's two questions for any model: which of up to nine fits best, or yes or no for each.

``mode=pick`` asks for the number of the best, as the released model was trained (it answers ``Ans: (3)``),
and reads the probabilities of all digits, which are a whole order; ``written`` takes the one number that a
model writes. ``mode=score`` is its other training task, Yes or No for each image. More candidates than
``window`` go through windows from the end to the head. The released checkpoint itself is a dedicated
reranker: ``--rerank scorer --chat unime_reranker:PATH``. Relevance is the share that an image has of the last
question's answers, or P(Yes).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from mmrerank.limits import Count, ImageTokens, Share
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank import unime
from mmrerank.rerank.aggregate import by_value, first_scores, fused
from mmrerank.rerank.relevance import chained, numbers, placed
from mmrerank.rerank.schedules import windows
from mmrerank.rerank.strategies import judge
from mmrerank.types import Assessment, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("choice_logprobs",)
FAMILY = "setwise"
PAPER = "UniME-V2 (arXiv 2510.13515)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``mode``: ``pick`` the best of ``window`` images (2 to 9: each has one digit), or ``score`` each.

    ``written`` reads the number that is written, for models without log-probabilities: it moves the best of
    each window to its head and says nothing of the others. ``weight`` is the judgement's share beside the
    first stage's score. ``exact`` counts the tokens Yes and No alone, for a model that was trained on them.
    ``image_tokens`` bounds the visual tokens per image.
    """

    mode: Literal["pick", "score"] = "pick"
    window: Count = 9
    written: bool = False
    weight: Share = 1.0
    exact: bool = False
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
        if not 2 <= self.window <= unime.MOST:
            raise ValueError(f"window must be 2 to {unime.MOST}: each image has one digit")
        if not 0 <= self.weight <= 1:
            raise ValueError("weight must be from 0 to 1")

    @property
    def step(self) -> int:
        """How much nearer the head the next window starts; of written numbers only one place is settled."""
        return self.window - 1 if self.written else max(1, self.window // 2)

    def needs(self) -> tuple[Capability, ...]:
        """A written number takes no log-probabilities."""
        return ("generate",) if self.written and self.mode == "pick" else NEEDS

    def calls(self, k: int) -> int:
        """Questions for ``k`` candidates."""
        return 0 if k < 2 else k if self.mode == "score" else len(windows(k, self.window, self.step))

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order."""
        if self.weight < 1:
            return 0
        if self.mode == "score":
            return k
        if self.written:
            return min(1, k)
        return k if k <= self.window else self.window - self.step


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Picks or scores; one candidate or none is returned without a question."""
    if options.mode == "score":
        plain = judge.Options(
            weight=options.weight, exact=options.exact, image_tokens=options.image_tokens
        )  # fmt: skip
        return (yield from judge.rank(query, ranking, plain))
    if len(ranking) < 2:
        return Outcome(ranking=ranking)
    outcome = yield from _listed(query, ranking, options)
    if options.weight >= 1:
        return outcome
    # windows give no common scale, but places do
    known = {i: -float(n) for n, i in enumerate(outcome.ranking.ids) if i in outcome.explanation.assessments}
    mixed = fused(known, first_scores(ranking), options.weight)
    after, _ = ranking.reorder(by_value(ranking.ids, mixed))
    reason = "places by one answer's digits beside the first stage's scores"
    explanation = replace(outcome.explanation, reason=reason, **numbers(after.ids, mixed))
    return replace(outcome, ranking=after, explanation=explanation)


def _listed(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Window by window, each in the order of its digits."""
    order = list(ranking.candidates)
    rounds: list[dict[str, float]] = []
    assessments: dict[str, Assessment] = {}
    failed = 0
    for start, end in windows(len(order), options.window, options.step):
        part = order[start:end]
        ask = unime.best(query, part, image_tokens=options.image_tokens, written=options.written)
        (reply,) = yield [ask]
        values = dict(unime.read_best(reply, ask))
        failed += not values
        rounds += [values] if values else []
        by_id = {c.id: c for c in part}
        # a written number says which is best and nothing of the others, which keep their order behind it
        own = list(values) + [i for i in by_id if i not in values]
        order[start:end] = [by_id[i] for i in (own if options.written else by_value(list(by_id), values))]
        told = "named as the best" if options.written else "log P of its number {:.2f}"
        assessments.update({i: Assessment(reason=told.format(v)) for i, v in values.items()})
    after, _ = ranking.reorder(c.id for c in order)
    if options.written:
        reason = "the best of each window, as the model wrote its number"
        shares = placed(after.ids, settled=1) if rounds else {}
        found = numbers(after.ids, shares)
    else:
        reason = "ordered by the probabilities of one answer's digits"
        scores = chained(after.ids, rounds)
        whole = math.log(sum(math.exp(v) for v in rounds[-1].values())) if rounds else 0.0
        found = numbers(after.ids, scores, lambda s: math.exp(min(s - whole, 0.0)))
    return Outcome(
        ranking=after,
        explanation=Explanation(assessments=assessments, reason=reason, **found),
        repairs=Repairs(failed=failed),
    )
