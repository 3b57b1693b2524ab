"""GroupRank: groups of images graded side by side, several times over random groups (AQ-MedAI/Diver).

The mean of an image's grades orders it. Unlike the released code, an image without a readable grade keeps
its first-stage rank instead of getting zero.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from mmrerank.ports import Capability, Judging, Outcome
from mmrerank.rerank import comparisons
from mmrerank.rerank.aggregate import by_value
from mmrerank.types import Assessment, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("generate",)
FAMILY = "groupwise"
PAPER = "GroupRank (AQ-MedAI/Diver)"


@dataclass(frozen=True, kw_only=True)
class Options:
    """``group_size`` images stand in one question; ``repeats`` times with other groups, drawn by ``seed``.

    ``image_tokens`` bounds the visual tokens per image.
    """

    group_size: int = 10
    repeats: int = 2
    seed: int = 0
    image_tokens: int = 256

    def __post_init__(self) -> None:
        if self.group_size < 1 or self.repeats < 1:
            raise ValueError("group_size and repeats must be at least 1")


def calls(k: int, options: Options) -> int:
    """Questions for ``k`` candidates."""
    return 0 if k < 2 else options.repeats * -(-k // options.group_size)


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Grades all groups in one round; one candidate or none is returned without a question."""
    if len(ranking) < 2:
        return Outcome(ranking=ranking)
    rng, size = random.Random(options.seed), options.group_size
    asks = []
    for _ in range(options.repeats):
        mixed = rng.sample(ranking.candidates, len(ranking))
        asks += [
            comparisons.grade(query, mixed[n : n + size], image_tokens=options.image_tokens)
            for n in range(0, len(mixed), size)
        ]
    replies = yield asks
    marks: dict[str, list[float]] = {}
    notes: dict[str, str] = {}
    repairs = Repairs()
    for ask, reply in zip(asks, replies, strict=True):
        found, read = comparisons.read_grade(reply, ask)
        repairs += read.repairs
        for id_, mark in found.items():
            marks.setdefault(id_, []).append(mark)
            notes.setdefault(id_, read.assessments[id_].reason)
    values = {i: sum(m) / len(m) for i, m in marks.items()}
    after, _ = ranking.reorder(by_value(ranking.ids, values))
    told = {i: Assessment(reason=notes[i]) for i in values}
    return Outcome(
        ranking=after,
        explanation=Explanation(
            assessments=told, reason=f"ordered by the mean of {options.repeats} grades in groups"
        ),
        repairs=repairs,
    )
