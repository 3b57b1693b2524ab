"""A cascade: a cheap method over all candidates, a dear one over the best of them.

Both are methods by name, with their own defaults. `dear` is one such pair under the name of its paper.

Relevance is the second method's for those that it ordered, and the first one's for the rest, but never above
the least of the second's. Where the second says nothing at all, all is the first one's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmrerank import registry
from mmrerank.limits import Count
from mmrerank.ports import Capability, Judging, Outcome, Strategy, StrategyOptions
from mmrerank.rerank.relevance import Numbers, falling, stacked
from mmrerank.types import Explanation, Query, Ranking

NEEDS: tuple[Capability, ...] = ("choice_logprobs", "generate")
FAMILY = "cascade"
PAPER = ""


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``first`` orders all, ``then`` the best ``keep`` of its order."""

    first: str = "pointwise"
    then: str = "listwise"
    keep: Count = 10

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError("keep must be at least 1")
        if "cascade" in (self.first, self.then):
            raise ValueError("first and then are methods other than cascade")

    def needs(self) -> tuple[Capability, ...]:
        """What both need."""
        return tuple(dict.fromkeys(n for m, o in _stages(self) for n in registry.needs_of(m, o)))

    def calls(self, k: int) -> int | None:
        """Questions for ``k`` candidates: those of both methods."""
        (_, mine), (_, its) = _stages(self)
        # a first method that searches again hands on more
        first, then = mine.calls(k), its.calls(min(mine.hands_on(k), self.keep))
        return None if first is None or then is None else first + then

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order."""
        (_, mine), (_, its) = _stages(self)
        kept = min(k, self.keep)
        refined = its.settles(kept)
        settled = mine.settles(k)
        if settled < kept:
            return min(settled, refined)
        return settled if refined == kept else refined


def _stages(options: Options) -> list[tuple[Strategy, StrategyOptions]]:
    modules: list[Strategy] = [registry.load("strategy", n) for n in (options.first, options.then)]
    return [(m, m.Options()) for m in modules]


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """One method after the other; what the first ones said of an image stands where the second is silent."""
    (one, mine), (other, its) = _stages(options)
    before = yield from one.rank(query, ranking, mine)
    head = Ranking(before.ranking.candidates[: options.keep])
    after = yield from other.rank(query, head, its)
    order = before.ranking.with_head(after.ranking)
    assessments = {**before.explanation.assessments, **after.explanation.assessments}
    reasons = [o.explanation.reason for o in (before, after) if o.explanation.reason]
    return Outcome(
        ranking=order,
        explanation=Explanation(
            components=after.explanation.components or before.explanation.components,
            assessments=_merged(before.explanation, after.explanation, assessments),
            reason=f"first {options.first}, then {options.then} over the best {len(head)}: "
            + "; then ".join(reasons),
            **_numbers(order.ids, {c.id for c in after.ranking}, before.explanation, after.explanation),
        ),
        repairs=before.repairs + after.repairs,
        notes=(*before.notes, *after.notes),
    )


def _numbers(ids: Sequence[str], head: Collection[str], one: Explanation, other: Explanation) -> Numbers:
    """The second method's numbers for the ``head``, the first one's for the rest, as one scale."""
    if not other.scores and not other.relevance:
        return {"scores": dict(one.scores), "relevance": falling(ids, one.relevance)}
    rest = {i: s for i, s in one.scores.items() if i not in head}
    behind = {i: r for i, r in one.relevance.items() if i not in head}
    return {"scores": stacked(other.scores, rest), "relevance": falling(ids, {**other.relevance, **behind})}


def _merged(before: Explanation, after: Explanation, assessments: dict[str, Any]) -> dict[str, Any]:
    """Assessments with the reasons of both stages."""
    merged = dict(assessments)
    for id_ in before.assessments.keys() & after.assessments.keys():
        reasons = [e.assessments[id_].reason for e in (before, after)]
        merged[id_] = replace(assessments[id_], reason="; then ".join(r for r in reasons if r))
    return merged
