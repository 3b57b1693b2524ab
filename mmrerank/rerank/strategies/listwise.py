"""Listwise: the model orders a window of images by looking; the window slides to the head (RankGPT).

Windows go from the end to the head and overlap, so that a good image can climb all the way. Within a window
that failed, the order stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmrerank.ports import Capability, Judging, Outcome
from mmrerank.rerank import judgements
from mmrerank.rerank.schedule import windows
from mmrerank.types import Explanation, Query, Ranking, Repairs

NEEDS: tuple[Capability, ...] = ("generate",)
FAMILY = "listwise"
PAPER = "RankGPT (arXiv 2304.09542)"


@dataclass(frozen=True, kw_only=True)
class Options:
    """``window`` images stand in one question and the next starts ``step`` places nearer the head.

    ``image_tokens`` bounds the visual tokens per image.
    """

    window: int = 20
    step: int = 10
    image_tokens: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.step <= self.window:
            raise ValueError("step must be at least 1 and at most window")


def calls(k: int, options: Options) -> int:
    """Questions for ``k`` candidates."""
    return 0 if k < 2 else len(windows(k, options.window, options.step))


def rank(query: Query, ranking: Ranking, options: Options) -> Judging:
    """Orders window by window; one candidate or none is returned without a question."""
    order = list(ranking.candidates)
    repairs, reason = Repairs(), ""
    for start, end in windows(len(order), options.window, options.step) if len(order) > 1 else ():
        ask = judgements.order(
            query, (), order[start:end], {}, show_images=True, image_tokens=options.image_tokens
        )
        (reply,) = yield [ask]
        read = judgements.read_order(reply, ask)
        repairs += read.repairs
        reason = read.reason
        there, _ = Ranking(tuple(order[start:end])).reorder(read.order)
        order[start:end] = there.candidates
    after, _ = ranking.reorder(c.id for c in order)
    return Outcome(ranking=after, explanation=Explanation(reason=reason), repairs=repairs)
