"""Listwise: the model orders a window of images by looking; the window slides to the head (RankGPT).

Windows go from the end to the head and overlap, so that a good image can climb all the way. ``full`` shows
all candidates at once, which models tuned for it prefer. Within a window that failed, the order stays as it
was. ``think`` is ReasonRank's way: thoughts of any length before the order; one that used up its room
without an answer is asked once more with twice the room. See `reasonrank`.

Relevance is the score that the model wrote, of 99; over several windows, images keep the distance that they
had in the last one together. Where it wrote an order without scores, relevance is the place alone: the share
of the other candidates that an image stands before.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from mmrerank.errors import NoRoomError
from mmrerank.limits import Count, ImageTokens, Thoughts
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Judging, Outcome, StrategyOptions
from mmrerank.rerank import judgements
from mmrerank.rerank.orders import TOP_SCORE
from mmrerank.rerank.relevance import Numbers, chained, numbers, out_of, placed
from mmrerank.rerank.replies import Reading
from mmrerank.rerank.schedules import windows
from mmrerank.types import Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("generate",)
FAMILY = "listwise"
PAPER = "RankGPT (arXiv 2304.09542); full ranking (arXiv 2412.14574)"


@dataclass(frozen=True, kw_only=True)
class Options(StrategyOptions):
    """``window`` images stand in one question and the next starts ``step`` places nearer the head.

    ``full`` makes one window of all. ``think`` is how many tokens of thoughts may stand before an order.
    ``image_tokens`` bounds the visual tokens per image.
    """

    window: Count = 20
    step: Count = 10
    full: bool = False
    think: Thoughts = 0
    image_tokens: ImageTokens = 256

    def __post_init__(self) -> None:
        if not 1 <= self.step <= self.window:
            raise ValueError("step must be at least 1 and at most window")
        if self.think < 0:
            raise ValueError("think must be 0 (no thoughts) or more")

    def calls(self, k: int) -> int:
        """Questions for ``k`` candidates; thoughts that find no end are asked for once more."""
        if k < 2:
            return 0
        return 1 if self.full else len(windows(k, self.window, self.step))

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order: what one pass brings to the head."""
        return k if self.full or k <= self.window else self.window - self.step


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Orders window by window; one candidate or none is returned without a question."""
    order = list(ranking.candidates)
    k = len(order)
    size = max(k, 1) if options.full else options.window
    repairs, reason = Repairs(), ""
    reads: list[Reading] = []
    for start, end in windows(k, size, min(options.step, size)) if k > 1 else ():
        ask = judgements.order(
            query,
            (),
            order[start:end],
            {},
            show_images=True,
            think=options.think,
            image_tokens=options.image_tokens,
        )
        read = yield from _answer(ask, again=options.think > 0)
        repairs += read.repairs
        reads += [read] if read.order else []
        reason = read.reason
        there, _ = Ranking(tuple(order[start:end])).reorder(read.order)
        order[start:end] = there.candidates
    after, _ = ranking.reorder(c.id for c in order)
    told = _numbers(after.ids, reads)
    return Outcome(ranking=after, explanation=Explanation(reason=reason, **told), repairs=repairs)


def _numbers(ids: Sequence[str], reads: Sequence[Reading]) -> Numbers:
    """Scores where every window gave them; else places, of what the model named."""
    if all(r.scores for r in reads):
        return numbers(ids, chained(ids, [r.scores for r in reads]), out_of(TOP_SCORE))
    named = {i for r in reads for i in r.order}
    return {"scores": {}, "relevance": {i: p for i, p in placed(ids).items() if i in named}}


def _answer(ask: Ask, *, again: bool) -> Generator[list[Ask], list[Reply], Reading]:
    (reply,) = yield [ask]
    read = judgements.read_order(reply, ask)
    # all of the room may have gone into thoughts that a server keeps to itself
    cut = reply.finish == "length" or isinstance(reply.error, NoRoomError)
    if again and read.status == "failed" and cut:
        (reply,) = yield [replace(ask, max_tokens=2 * ask.max_tokens)]
        read = judgements.read_order(reply, ask)
    return read
