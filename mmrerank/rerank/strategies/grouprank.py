"""GroupRank: groups of images graded side by side, several times over random groups (AQ-MedAI/Diver).

The mean of an image's grades orders it. Unlike the released code, an image without a readable grade keeps
its first-stage rank instead of getting zero, and scores are stretched before they are mixed with the first
stage's. ``anchors`` images of the head stand in every group, so that grades of different groups compare.

Relevance is the mean grade of 10; with ``weight`` below 1 it is the mixed number, which says how a candidate
stands among these and nothing more.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from mmrerank.limits import Count, ImageTokens, Repeats, Seed, Share, UpTo
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank import comparisons
from mmrerank.rerank.aggregate import by_value, first_scores, fused, mean_known
from mmrerank.rerank.relevance import numbers, out_of
from mmrerank.types import Assessment, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("generate",)
FAMILY = "groupwise"
PAPER = "GroupRank (arXiv 2511.11653)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``group_size`` images stand in one question; ``repeats`` times with other groups, drawn by ``seed``.

    ``anchors`` of them, the first of the first stage, are in every group. ``weight`` is the grades' share
    beside the first stage's score (0.6 in the paper). ``image_tokens`` bounds the visual tokens per image.
    """

    group_size: Count = 10
    repeats: Repeats = 2
    anchors: UpTo = 0
    weight: Share = 1.0
    seed: Seed = 0
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
        if self.group_size < 1 or self.repeats < 1:
            raise ValueError("group_size and repeats must be at least 1")
        if not 0 <= self.anchors < self.group_size:
            raise ValueError("anchors must be fewer than group_size")
        if not 0 <= self.weight <= 1:
            raise ValueError("weight must be from 0 to 1")

    def calls(self, k: int) -> int:
        """Questions for ``k`` candidates."""
        if k < 2:
            return 0
        anchors = min(self.anchors, k - 1)
        return self.repeats * -(-(k - anchors) // (self.group_size - anchors))

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order."""
        return k if self.weight >= 1 else 0


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Grades all groups in one round; one candidate or none is returned without a question."""
    k = len(ranking)
    if k < 2:
        return Outcome(ranking=ranking)
    rng = random.Random(options.seed)
    fixed = min(options.anchors, k - 1)
    anchors, rest = ranking.candidates[:fixed], ranking.candidates[fixed:]
    size = options.group_size - fixed
    asks = []
    for _ in range(options.repeats):
        mixed = rng.sample(rest, len(rest))
        for n in range(0, len(mixed), size):
            group = [*anchors, *mixed[n : n + size]]
            asks.append(
                comparisons.grade(query, rng.sample(group, len(group)), image_tokens=options.image_tokens)
            )
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
    values = {i: v for i, m in marks.items() if (v := mean_known(m)) is not None}
    mixed_in = fused(values, first_scores(ranking), options.weight)
    after, _ = ranking.reorder(by_value(ranking.ids, mixed_in))
    assessments = {i: Assessment(reason=notes[i]) for i in values}
    beside = "" if options.weight >= 1 else " and the first stage's score"
    return Outcome(
        ranking=after,
        explanation=Explanation(
            assessments=assessments,
            reason=f"ordered by the mean of {options.repeats} grades in groups{beside}",
            **numbers(after.ids, mixed_in, out_of(comparisons.TOP_MARK) if options.weight >= 1 else float),
        ),
        repairs=repairs,
    )
