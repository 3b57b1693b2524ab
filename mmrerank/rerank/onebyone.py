"""What pointwise methods share: one number an image, asked of each on its own, and an order by it.

A method brings its question and its reader; pruning, early exit, fusion with the first stage, and what
happens to an image that could not be judged are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial

from mmrerank.messages import Ask, Reply, Said
from mmrerank.ports import Judging, Outcome
from mmrerank.rerank.aggregate import by_value, first_scores, fused
from mmrerank.rerank.relevance import numbers
from mmrerank.rerank.thrift import Thrift, scored
from mmrerank.types import Assessment, Candidate, Explanation, Ranking, Repairs

_EVERYTHING = Thrift()


def one_by_one(
    ranking: Ranking,
    *,
    ask: Callable[[Candidate], Ask],
    read: Callable[[Reply], float | None],
    tell: Callable[[float], str],
    reason: str,
    relevance: Callable[[float], float] = float,
    thrift: Thrift = _EVERYTHING,
    weight: float = 1.0,
) -> Judging:
    """Orders by ``read`` of each reply, highest first, equal ones in first-stage order.

    ``tell`` says a number in words, ``relevance`` as 0 to 1 (by default it is that already). ``weight`` is
    the judgement's share beside the first stage's score; below 1 the mixed number, which is from 0 to 1, is
    score and relevance.
    One candidate or none is returned without a question.
    """
    if len(ranking) < 2:
        return Outcome(ranking=ranking)
    thoughts: dict[str, str] = {}

    def says(id_: str, reply: Reply) -> Said:
        value = read(reply)
        if value is None:
            return Said()
        return Said(judged={id_: value}, relevance={id_: relevance(value)} if weight >= 1 else {})

    def scoring(group: Sequence[Candidate]) -> Generator[list[Ask], list[Reply], list[float | None]]:
        replies = yield [replace(ask(c), says=partial(says, c.id)) for c in group]
        thoughts.update({c.id: r.text for c, r in zip(group, replies, strict=True) if r.text})
        return [read(r) for r in replies]

    values, failed = yield from scored(ranking, thrift, scoring)
    mixed = fused(values, first_scores(ranking), weight)
    after, _ = ranking.reorder(by_value(ranking.ids, mixed))
    assessments = {
        i: Assessment(reason=f"{tell(v)}{'; ' if i in thoughts else ''}{thoughts.get(i, '')}")
        for i, v in values.items()
    }
    left = len(ranking) - len(values) - failed
    if left:
        reason += f"; {left} were not asked about"
    if weight < 1:
        reason += f", {weight:g} of it beside the first stage's score"
    return Outcome(
        ranking=after,
        explanation=Explanation(
            assessments=assessments,
            reason=reason,
            **numbers(after.ids, mixed, relevance if weight >= 1 else float),
        ),
        repairs=Repairs(failed=failed),
    )


def calls_one_by_one(k: int) -> int:
    """Questions for ``k`` candidates; an upper bound with pruning or early exit."""
    return 0 if k < 2 else k
