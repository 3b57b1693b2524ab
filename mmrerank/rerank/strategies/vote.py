"""Permutation voting: a method asked several times over shuffled lists, and a Borda count of its answers.

Each shuffled list is also asked turned around, so that a liking for places cancels, and images that the model
does not tell apart come out even and keep first-stage order. With an odd number the list as it
stands has a vote as well. (Shuffled self-consistency: Permutation Self-Consistency, arXiv 2310.07712.)

Relevance is the share of all points that an image could have: of the others that it stands before.
"""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from dataclasses import dataclass

from mmrerank import registry
from mmrerank.limits import Repeats, Seed
from mmrerank.ports import Capability, Judging, Outcome, Strategy, StrategyOptions
from mmrerank.rerank.aggregate import by_value
from mmrerank.rerank.relevance import numbers
from mmrerank.rerank.together import together
from mmrerank.types import Assessment, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("generate",)
FAMILY = "vote"
PAPER = "Permutation self-consistency (arXiv 2310.07712)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``method`` votes ``votes`` times over lists shuffled by ``seed``; it has its own defaults."""

    method: str = "listwise"
    votes: Repeats = 3
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.votes < 1:
            raise ValueError("votes must be at least 1")
        if self.method == "vote":
            raise ValueError("method is one other than vote")

    def needs(self) -> tuple[Capability, ...]:
        """What the method needs."""
        return registry.needs_of(*_inner(self))

    def calls(self, k: int) -> int | None:
        """Questions for ``k`` candidates: those of the method, as often as it votes."""
        _, inner = _inner(self)
        calls = inner.calls(k)
        return 0 if k < 2 else None if calls is None else self.votes * calls

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order."""
        _, inner = _inner(self)
        # a part that not every vote settles is settled by none
        return k if inner.settles(k) == k else 0


def _inner(options: Options) -> tuple[Strategy, StrategyOptions]:
    module: Strategy = registry.load("strategy", options.method)
    return module, module.Options()


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """All votes side by side; one candidate or none is returned without a question."""
    if len(ranking) < 2:
        return Outcome(ranking=ranking)
    module, inner = _inner(options)
    rng = random.Random(options.seed)
    lists = [ranking] if options.votes % 2 else []
    while len(lists) < options.votes:
        shuffled = rng.sample(ranking.candidates, len(ranking))
        lists += [Ranking(tuple(shuffled)), Ranking(tuple(shuffled[::-1]))]
    outcomes = yield from together([module.rank(query, r, inner) for r in lists])
    repairs = sum((o.repairs for o in outcomes), Repairs())
    known = set(ranking.ids)
    voted = [_counted(o, known) for o in outcomes]
    points = shares(voted)
    after, _ = ranking.reorder(by_value(ranking.ids, points))
    told = numbers(after.ids, points)
    votes = sum(len(ids) > 1 for ids in voted)
    best = (len(ranking) - 1) * votes
    points = {i: p * best for i, p in points.items()}
    first = outcomes[0].explanation
    assessments = {
        i: Assessment(
            grade=a.grade if (a := first.assessments.get(i)) else None,
            verdicts=a.verdicts if a else (),
            reason=f"{p:.0f} of {best} points" + (f"; {a.reason}" if a and a.reason else ""),
        )
        for i, p in points.items()
    }
    return Outcome(
        ranking=after,
        explanation=Explanation(
            components=first.components,
            assessments=assessments,
            reason=f"Borda count of {votes} votes of {options.method} over shuffled lists",
            **told,
        ),
        repairs=repairs,
        notes=tuple(dict.fromkeys(n for o in outcomes for n in o.notes)),
    )


def _counted(outcome: Outcome, known: Container[str]) -> list[str]:
    """The images that a vote has an opinion of, best first; what it found besides has no place in the others.

    Where a judgement failed, images stand as the shuffle put them, which is nobody's opinion.
    """
    assessments = outcome.explanation.assessments
    failed = outcome.repairs.failed > 0
    return [i for i in outcome.ranking.ids if i in known and (not failed or i in assessments)]


def shares(votes: Sequence[Sequence[str]]) -> dict[str, float]:
    """How many of the others each image stands before, 0 to 1, over the votes that have it: Borda's count.

    Votes for all images and votes for some of them count alike.
    """
    found: dict[str, list[float]] = {}
    for ids in votes:
        for place, id_ in enumerate(ids):
            if len(ids) > 1:
                found.setdefault(id_, []).append(1 - place / (len(ids) - 1))
    # rounded, so that equal images do not differ by the order in which their votes were added up
    return {i: round(sum(s) / len(s), 9) for i, s in found.items()}
