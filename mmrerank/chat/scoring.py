"""A dedicated reranker as a chat of capability ``score``: so caches, records, budgets and drivers know it.

Questions of one query are put to the scorer together, which fills its batch; what each one gets depends on
itself alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import groupby

from mmrerank import cancel
from mmrerank.answering import Numbered, ending, filled, in_order, over
from mmrerank.budget import bound
from mmrerank.errors import ChatError, ImageError, InputError, ReplyError
from mmrerank.images import decode
from mmrerank.messages import Ask, Reply, Scoring
from mmrerank.ports import Capability, Chat, Marks, Scorer
from mmrerank.types import Candidate, Image, Query, Usage

MOST = 64
"""Candidates that are put to a scorer at once; fewer where somebody waits for each score (`Scorer.batch`)."""


class ScorerChat(Chat):
    """``scorer`` behind `mmrerank.ports.Chat`: answers each `Scoring`, and nothing else but a plain question.

    A plain question (without choices) is scored as a text, to show whether the scorer is there.
    """

    capabilities: frozenset[Capability] = frozenset({"score"})

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.spec, self.domain = scorer.spec, scorer.domain
        self.concurrency, self.group = scorer.concurrency, max(scorer.group, 1)
        self.batch = 1 if self.group > 1 else max(scorer.batch, 1)

    @property
    def fingerprint(self) -> str:  # type: ignore[override] # the scorer's, which may learn
        """The scorer's."""
        return self.scorer.fingerprint

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        """Scores for every `Scoring`. Raises `ChatError` where every question would fail."""
        return in_order(self._each(asks, None, MOST))

    def reply_within(self, asks: Sequence[Ask], seconds: float | None) -> list[Reply]:
        """`reply`; what was not begun after so many seconds gets a reply with a `BudgetError`."""
        return in_order(self.reply_each(asks, seconds))

    def reply_each(self, asks: Sequence[Ask], seconds: float | None = None) -> Numbered:
        """Replies as calls of the scorer end."""
        end = ending(seconds)
        return filled(self._each(asks, end, self.batch), len(asks), end)

    def _each(self, asks: Sequence[Ask], end: float | None, size: int) -> Numbered:
        for places in _batches(asks, self.group, size):
            cancel.check()
            if over(end):
                return
            yield from zip(places, self._answers([asks[p] for p in places]), strict=True)

    def bound(self, ask: Ask) -> Usage:
        """The most that ``ask`` costs: the model's own prompt and pictures, and what it writes."""
        most = bound(ask)
        more = (self.scorer.image_tokens - ask.image_tokens) * most.images + PROMPT
        return most + Usage(input_tokens=max(more, 0), output_tokens=max(self.scorer.writes - 1, 0))

    def cancel(self) -> None:
        """Gives up what is under way."""
        self.scorer.cancel()

    def close(self) -> None:
        """Frees the scorer."""
        self.scorer.close()

    def _answers(self, asks: Sequence[Ask]) -> list[Reply]:
        """Replies to questions of one query, or to a single one."""
        start = time.perf_counter()
        first = asks[0]
        if not isinstance(first, Scoring):
            return [self._plain(first)]
        sizes = [len(a.candidates) for a in asks if isinstance(a, Scoring)]
        shown = [c for a in asks if isinstance(a, Scoring) for c in a.candidates]
        try:
            marks = self._marks(first.asked, shown, first.instruction)
        except (InputError, OSError) as error:  # a picture of the query
            marks = _all_failed(ChatError(f"an image of the question cannot be shown: {error}", kind="image"),
                                len(shown))  # fmt: skip
        except ChatError as error:
            if error.systemic:
                raise
            marks = _all_failed(error, len(shown))
        seconds = (time.perf_counter() - start) / len(asks)
        replies, at = [], 0
        for ask, size in zip(asks, sizes, strict=True):
            replies.append(self._reply(ask, marks, shown, range(at, at + size), len(asks), seconds))
            at += size
        return replies

    def _marks(self, query: Query, shown: Sequence[Candidate], instruction: str) -> Marks:
        numbered = [Candidate(id=str(n), image=c.image, text=c.text) for n, c in enumerate(shown, start=1)]
        marks = self.scorer.marks(query, numbered, instruction)
        if len(marks.scores) != len(shown):
            why = f"{self.spec} gave {len(marks.scores)} scores to {len(shown)} candidates"
            raise ReplyError(why)
        return marks

    def _reply(
        self, ask: Ask, marks: Marks, shown: Sequence[Candidate], places: range, asks: int, seconds: float
    ) -> Reply:
        """The reply to one question, whose candidates are those at ``places``."""
        scores = tuple(float(marks.scores[p]) for p in places)
        images = sum(p.image is not None for m in ask.messages for p in m.parts)
        tokens = sum(marks.tokens[p] for p in places) if marks.tokens else 0
        written = marks.written // asks
        usage = Usage(
            calls=1, input_tokens=tokens, output_tokens=written, images=images, seconds=seconds
        )  # fmt: skip
        lost = [p for p, s in zip(places, scores, strict=True) if math.isnan(s)]
        bad = next((e for p in lost if (e := self._why(p, marks, shown[p])).kind == "image"), None)
        if lost and (bad is not None or len(lost) == len(scores)):
            return Reply(error=bad or self._why(lost[0], marks, shown[lost[0]]), finish="error", usage=usage)
        return Reply(
            scores=scores, logits=self.scorer.logits, text=marks.text, usage=usage, notes=marks.notes
        )  # fmt: skip

    def _why(self, place: int, marks: Marks, candidate: Candidate) -> ChatError:
        """Why the candidate at ``place`` has no score."""
        if place in marks.failures:
            return marks.failures[place]
        if candidate.image is not None and (why := _unshowable(candidate.image)):
            return ChatError(f"an image of the question cannot be shown: {why}", kind="image")
        return ReplyError(f"{self.spec} gave no score")

    def _plain(self, ask: Ask) -> Reply:
        if ask.choices or ask.read:
            raise ChatError(f"{self.spec} is a reranker: it scores, and does not give {ask.needs}")
        text = " ".join(m.text for m in ask.messages)
        said = [Candidate(id=str(n), text=text) for n in range(1, min(self.group, 2) + 1)]
        try:
            marks = self.scorer.marks(Query(text=text), said)
        except ChatError as error:
            return Reply(error=error, finish="error", usage=Usage(calls=1))
        failed = marks.failures.get(0)
        words = " ".join(f"{s:.4f}" for s in marks.scores)
        return Reply(
            text="" if failed else words, error=failed, usage=Usage(calls=1, input_tokens=sum(marks.tokens))
        )


PROMPT = 512
"""Tokens allowed for what a reranker's own prompt says around a question."""


def _batches(asks: Sequence[Ask], group: int, size: int) -> list[list[int]]:
    """Places of questions that go to the scorer together: so many of one query, each about one candidate."""

    def key(place: int) -> tuple[object, ...]:
        ask = asks[place]
        # groups are read together, so that each is a call of its own
        alone = group > 1 or not isinstance(ask, Scoring) or len(ask.candidates) != 1
        return (place,) if alone else ask.messages[:-1]

    runs = [list(places) for _, places in groupby(range(len(asks)), key)]
    return [run[n : n + size] for run in runs for n in range(0, len(run), size)]


def _all_failed(error: ChatError, count: int) -> Marks:
    return Marks(scores=(math.nan,) * count, failures=dict.fromkeys(range(count), error))


def _unshowable(image: Image) -> str:
    try:
        decode(image)
    except (ImageError, OSError) as error:
        return str(error)
    return ""
