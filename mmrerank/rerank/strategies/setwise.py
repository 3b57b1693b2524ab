"""Setwise: which of a few images fits best, used as the comparison of a sort (ielab/llm-rankers).

One question shows a candidate and ``children`` others and reads the letters' log-probabilities. ``heap``
sorts the best ``top`` out of a heap; ``insertion`` goes by the first-stage order and discards several at once
that do not beat the last of the top. The rest keep first-stage order, as do those of a failed question.

Relevance is the place: the share of the other candidates that an image stands before; those behind the best
``top``, among which nothing is settled, share one value.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

from mmrerank.limits import Count, ImageTokens
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank import comparisons
from mmrerank.rerank.relevance import placed
from mmrerank.rerank.schedules import heap_calls, heap_top, insertion_calls, insertion_top
from mmrerank.types import Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("choice_logprobs",)
FAMILY = "setwise"
PAPER = "Setwise (arXiv 2310.09497); Setwise Insertion (arXiv 2504.10509)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``children``: images beside the one compared, 1 to 25. ``top``: how many places are settled.

    ``schedule``: how the comparisons sort. ``read``: the letters' log-probabilities, or the letter that is
    written. ``image_tokens`` bounds the visual tokens per image.
    """

    schedule: Literal["heap", "insertion"] = "heap"
    children: Count = 3
    top: Count = 10
    read: Literal["logprobs", "written"] = "logprobs"
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
        if not 1 <= self.children <= 25:
            raise ValueError("children must be 1 to 25: each image needs a letter")
        if self.top < 1:
            raise ValueError("top must be at least 1")

    def needs(self) -> tuple[Capability, ...]:
        """A written letter is generated."""
        return NEEDS if self.read == "logprobs" else ("generate",)

    def calls(self, k: int) -> int:
        """The most questions for ``k`` candidates."""
        bound = heap_calls if self.schedule == "heap" else insertion_calls
        return bound(k, self.top, self.children)

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order."""
        return min(k, self.top)


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Picks and orders; one candidate or none is returned without a question."""
    failed = 0
    seen: set[str] = set()

    def best(places: Sequence[int]) -> Generator[list[Ask], list[Reply], int]:
        nonlocal failed
        shown = [ranking.candidates[n] for n in places]
        ask = comparisons.pick(query, shown, image_tokens=options.image_tokens)
        if options.read == "written":
            ask = comparisons.written(ask)
            (reply,) = yield [ask]
            named, _ = comparisons.read_best(reply, ask)
            failed += named is None
            seen.update(ask.shown if named is not None else ())
            return places[0] if named is None else places[ask.shown.index(named)]
        (reply,) = yield [ask]
        values = comparisons.read_letters(reply, ask)
        failed += not values
        seen.update(values)
        # the earlier place where they are equal, or nothing is known
        return max(places, key=lambda n: (values.get(ranking.ids[n], 0.0), -n))

    sort = heap_top if options.schedule == "heap" else insertion_top
    order = yield from sort(len(ranking), options.top, options.children, best)
    after, _ = ranking.reorder(ranking.ids[n] for n in order)
    places = placed(after.ids, options.top)
    return Outcome(
        ranking=after,
        explanation=Explanation(
            relevance={i: p for i, p in places.items() if i in seen},
            reason=f"the best of {options.children + 1} images at a time, sorted by {options.schedule}",
        ),
        repairs=Repairs(failed=failed),
    )
