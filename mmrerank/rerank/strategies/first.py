"""FIRST: one question, one token, a whole order: candidates by the log-probability of their letters.

Letters stand bare at the start of the answer: on Qwen's vocabulary an opening bracket merges with most of
them, and an order read behind one is the first stage's in disguise. ``calibrate`` subtracts what the same
question without a search says, ``shifts`` averages over turned lists: both against a liking for a letter or a
place. More than ``window`` candidates are read in windows from the end to the head.

Relevance is the letter's share of the probability: the shares of one question add up to 1. Scores are the
log-probabilities; over several windows, images keep the distance that they had in the last one together.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

from mmrerank.limits import Count, ImageTokens, Repeats
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank import comparisons
from mmrerank.rerank.aggregate import by_value
from mmrerank.rerank.relevance import chained, log_sum, numbers
from mmrerank.rerank.schedules import windows
from mmrerank.rerank.states import NOTHING
from mmrerank.types import Assessment, Candidate, Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("choice_logprobs",)
FAMILY = "listwise"
PAPER = "FIRST (arXiv 2406.15657)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``window`` images stand in one question, 2 to 26, and the next starts ``step`` places nearer the head.

    ``calibrate`` asks once more without a search. ``shifts`` is how many turned lists are averaged.
    ``image_tokens`` bounds the visual tokens per image.
    """

    window: Count = 20
    step: Count = 10
    calibrate: bool = False
    shifts: Repeats = 1
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
        if not 2 <= self.window <= 26:
            raise ValueError("window must be 2 to 26: each image needs a letter")
        if not 1 <= self.step < self.window:
            raise ValueError("step must be at least 1 and less than window")
        if self.shifts < 1:
            raise ValueError("shifts must be at least 1")

    def calls(self, k: int) -> int:
        """Questions for ``k`` candidates."""
        if k < 2:
            return 0
        spans = windows(k, self.window, self.step)
        turned = sum(min(self.shifts, end - start) for start, end in spans)
        return turned * (2 if self.calibrate else 1)

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order: what one pass brings to the head."""
        return k if k <= self.window else self.window - self.step


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Reads window by window; one candidate or none is returned without a question."""
    order = list(ranking.candidates)
    failed = 0
    assessments: dict[str, Assessment] = {}
    rounds: list[dict[str, float]] = []
    spans = windows(len(order), options.window, options.step) if len(order) > 1 else []
    for start, end in spans:
        part = order[start:end]
        values, raw, missing = yield from letters(query, part, options)
        failed += missing
        rounds += [values] if values else []
        by_id = {c.id: c for c in part}
        # what the calibration leaves even, the answer itself decides
        before = by_value([c.id for c in part], raw)
        order[start:end] = [by_id[i] for i in by_value(before, values)]
        assessments.update({i: Assessment(reason=f"log P of its letter {v:.2f}") for i, v in values.items()})
    after, _ = ranking.reorder(c.id for c in order)
    scores = chained(after.ids, rounds)
    whole = log_sum(rounds[-1].values()) if rounds else 0.0
    reason = "ordered by the probabilities of one answer's letters"
    if options.calibrate:
        reason += ", less those without a search"
    return Outcome(
        ranking=after,
        explanation=Explanation(
            assessments=assessments,
            reason=reason,
            **numbers(after.ids, scores, lambda s: math.exp(min(s - whole, 0.0))),
        ),
        repairs=Repairs(failed=failed),
    )


def letters(
    query: Query, group: Sequence[Candidate], options: Options
) -> Generator[list[Ask], list[Reply], tuple[dict[str, float], dict[str, float], int]]:
    """Mean log-probability of each candidate's letter by id, calibrated and raw, and how many asks failed."""
    n = len(group)
    count = min(options.shifts, n)
    turned = [[*group[s:], *group[:s]] for s in (n * t // count for t in range(count))]
    asks = [comparisons.pick(query, g, image_tokens=options.image_tokens) for g in turned]
    if options.calibrate:
        # a reference image is content too: it is not in the search without any
        asks += [comparisons.pick(NOTHING, g, image_tokens=options.image_tokens) for g in turned]
    replies = yield asks
    read = [comparisons.read_letters(r, a) for a, r in zip(asks, replies, strict=True)]
    raw: dict[str, list[float]] = {}
    calibrated: dict[str, list[float]] = {}
    for t in range(count):
        prior = read[count + t] if options.calibrate else {}
        for id_, value in read[t].items():
            raw.setdefault(id_, []).append(value)
            # without the prior, the answer as it is still says something
            calibrated.setdefault(id_, []).append(value - prior.get(id_, 0.0))
    return _means(calibrated), _means(raw), sum(not r for r in read)


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {i: round(sum(v) / len(v), 9) for i, v in values.items()}
