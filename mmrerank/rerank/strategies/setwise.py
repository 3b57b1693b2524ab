"""Setwise: which of a few images fits best, used as the comparison of a heap (ielab/llm-rankers).

One question shows a candidate and its ``children`` in the heap and reads the letters' log-probabilities; the
best ``top`` come out in order, the rest keep first-stage order, as does whatever a failed question compared.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Judging, Outcome
from mmrerank.rerank import comparisons
from mmrerank.rerank.schedule import heap_calls, heap_top
from mmrerank.types import Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("choice_logprobs",)
FAMILY = "setwise"
PAPER = "Setwise (arXiv 2310.09497)"


@dataclass(frozen=True, kw_only=True)
class Options:
    """``children``: images beside the one compared, 1 to 25. ``top``: how many places are settled.

    ``image_tokens`` bounds the visual tokens per image.
    """

    children: int = 3
    top: int = 10
    image_tokens: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.children <= 25:
            raise ValueError("children must be 1 to 25: each image needs a letter")
        if self.top < 1:
            raise ValueError("top must be at least 1")


def calls(k: int, options: Options) -> int:
    """The most questions for ``k`` candidates."""
    return heap_calls(k, options.top, options.children)


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Picks and orders; one candidate or none is returned without a question."""
    failed = 0

    def best(places: Sequence[int]) -> Generator[list[Ask], list[Reply], int]:
        nonlocal failed
        shown = [ranking.candidates[n] for n in places]
        ask = comparisons.pick(query, shown, image_tokens=options.image_tokens)
        (reply,) = yield [ask]
        values = comparisons.read_letters(reply, ask)
        failed += not values
        # the earlier place where they are equal, or nothing is known
        return max(places, key=lambda n: (values.get(ranking.ids[n], 0.0), -n))

    order = yield from heap_top(len(ranking), options.top, options.children, best)
    after, _ = ranking.reorder(ranking.ids[n] for n in order)
    return Outcome(
        ranking=after,
        explanation=Explanation(reason="the best of a few images at a time, sorted by a heap"),
        repairs=Repairs(failed=failed),
    )
