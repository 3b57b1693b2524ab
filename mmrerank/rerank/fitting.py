"""One order of many images by looking at them side by side, within what a model holds in a question.

All images in one question where they fit; else the finalists, which are all that are tied with or above the
place ``top``; where those do not fit either, windows over them from the end to the head. A question that is
refused for its size is asked again with fewer images. With two passes each question is asked over the
reversed order too, and the scores are averaged: a liking for early or for late places cancels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mmrerank.errors import ChatError
from mmrerank.messages import Ask, Reply
from mmrerank.rerank.aggregate import mean_known
from mmrerank.rerank.relevance import chained, stacked
from mmrerank.rerank.replies import Reading
from mmrerank.rerank.rooms import room
from mmrerank.rerank.schedules import windows
from mmrerank.types import Candidate, Repairs

TOP_SCORE = 99
"""The best score that a model may give an image among others."""
_TOO_MUCH = frozenset({"too_many_images", "too_large", "context"})
Question = Callable[[Sequence[Candidate]], Ask]
Read = Callable[[Reply, Ask], Reading]


@dataclass(frozen=True, kw_only=True)
class Found:
    """An order of ids, best first (those that nothing is known of are not in it), and what led to it.

    ``scores`` fall along the order. ``marks`` are from 0 to 1, and of different questions where there were
    windows. ``readings`` are of the last question that was answered, one for each pass.
    """

    order: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    marks: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    readings: tuple[Reading, ...] = ()
    repairs: Repairs = field(default_factory=Repairs)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """How candidates are ordered: ``question`` shows some of them, ``read`` reads the reply.

    ``values`` (0 to 1) say how good each is taken to be before; without them all are taken to be alike.
    ``blind`` asks without images, where a model does not take two of them in one question.
    """

    question: Question
    read: Read
    values: Mapping[str, float] = field(default_factory=dict)
    top: int = 10
    passes: int = 1
    blind: Question | None = None


def ordered(candidates: Sequence[Candidate], how: Ordering) -> Generator[list[Ask], list[Reply], Found]:
    """The order of ``candidates``, given in first-stage order; of fewer than two without a question."""
    line = list(candidates)
    held = _held(how.question, line)
    while held >= 2:
        finalists, rest = (line, []) if held >= len(line) else _finalists(line, how)
        found = yield from _sighted(finalists, held, how)
        if isinstance(found, Found):
            return _with_rest(found, finalists, rest, held, how.values)
        held = found
    if how.blind is None:
        return Found(repairs=Repairs(failed=1), notes=(_NO_TWO,))
    asked, _ = yield from _asked(line, how.blind, how)
    return replace(asked, notes=(_NO_TWO,))


def at_once(candidates: Sequence[Candidate], how: Ordering) -> Generator[list[Ask], list[Reply], Found]:
    """The order of ``candidates`` by one question about all of them, whatever the model holds."""
    found, _ = yield from _asked(candidates, how.question, how)
    return found


def _held(question: Question, line: Sequence[Candidate]) -> int:
    """How many of ``line`` one question holds, as far as anybody said."""
    there = room()
    if not line or not (there.images or there.tokens) or there.holds(question(line)):
        return max(len(line), 2)
    low, high = 0, len(line)  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if there.holds(question(line[:middle])) else (low, middle)
    return low


def _finalists(line: list[Candidate], how: Ordering) -> tuple[list[Candidate], list[Candidate]]:
    """Those tied with or above place ``top``, best first, and the others. No value is no reason to be out."""
    known = sorted((how.values[c.id] for c in line if c.id in how.values), reverse=True)
    cut = known[min(how.top, len(known)) - 1] if known else 0.0
    by_value = sorted(line, key=lambda c: -how.values.get(c.id, cut))
    chosen = [c for c in by_value if how.values.get(c.id, cut) >= cut]
    return chosen, by_value[len(chosen) :]


def _sighted(
    line: list[Candidate], held: int, how: Ordering
) -> Generator[list[Ask], list[Reply], Found | int]:
    """The order of ``line`` by sight; where a question is refused, how many images the next may hold."""
    order, size = list(line), min(held, len(line))
    marks: dict[str, float] = {}
    rounds: list[Mapping[str, float]] = []
    repairs, found = Repairs(), Found()
    for start, end in windows(len(order), size, max(size // 2, 1)) if len(order) > 1 else ():
        found, refused = yield from _asked(order[start:end], how.question, how)
        if refused is not None:
            return _fewer(refused, how.question(order[start:end]), end - start)
        marks |= found.marks
        rounds.append(found.scores)
        repairs += found.repairs
        by_id = {c.id: c for c in order[start:end]}
        seen = [by_id.pop(i) for i in found.order]
        order[start:end] = [*seen, *by_id.values()]
    if size == len(line):
        return found
    ids = tuple(c.id for c in order)
    return Found(
        order=ids, scores=chained(ids, rounds), marks=marks, reason=found.reason,
        readings=found.readings, repairs=repairs,
    )  # fmt: skip


def _fewer(refused: ChatError, ask: Ask, shown: int) -> int:
    """How many candidates to show after a question about ``shown`` of them was refused."""
    if refused.limit is None:
        return shown // 2
    images = sum(p.image is not None for m in ask.messages for p in m.parts)
    return min(shown - 1, refused.limit - max(images - shown, 0))


def _asked(
    line: Sequence[Candidate], question: Question, how: Ordering
) -> Generator[list[Ask], list[Reply], tuple[Found, ChatError | None]]:
    """What one question says of the order of ``line``, or the error that refuses its size."""
    asks = [question(line), *([question(line[::-1])] if how.passes > 1 else [])]
    replies = yield asks
    refused = next((r.error for r in replies if r.error is not None and _too_much(r.error)), None)
    readings = [how.read(r, a) for r, a in zip(replies, asks, strict=True)]
    repairs = sum((r.repairs for r in readings), Repairs())
    readable = [r for r in readings if r.order]
    if not readable:
        return Found(repairs=repairs, readings=tuple(readings)), refused
    tables = [r.scores or _spaced(r.order) for r in readable]
    known = {c.id: [t.get(c.id, math.nan) for t in tables] for c in line}
    scores = {i: m for i, v in known.items() if (m := mean_known(v)) is not None}
    place = {c.id: n for n, c in enumerate(line)}
    order = tuple(sorted(scores, key=lambda i: (-scores[i], place[i])))
    agreeing = next((r for r in readable if r.order[0] == order[0]), Reading(status="ok"))
    return Found(
        order=order,
        scores={i: scores[i] for i in order},
        marks={i: min(max(scores[i] / TOP_SCORE, 0.0), 1.0) for i in order},
        reason=agreeing.reason,
        readings=tuple(readings),
        repairs=repairs,
    ), refused


def _too_much(error: ChatError) -> bool:
    """Whether a question was refused for its size; a model in this process that ran out of memory too."""
    return error.kind in _TOO_MUCH or (error.kind == "server" and not error.retryable)


def _spaced(order: Sequence[str]) -> dict[str, float]:
    """Scores for a bare list: evenly from the best one down."""
    return {i: TOP_SCORE * (1 - n / max(len(order), 1)) for n, i in enumerate(order)}


def _with_rest(
    found: Found, finalists: Sequence[Candidate], rest: Sequence[Candidate], held: int,
    values: Mapping[str, float],
) -> Found:  # fmt: skip
    """``found`` with what was not shown again behind it, by its value."""
    if not rest and held >= len(finalists):
        return found
    settled = found.order or tuple(c.id for c in finalists)
    known = {c.id: values[c.id] for c in rest if c.id in values}
    scores = stacked(found.scores, known)
    return Found(
        order=(*settled, *(c.id for c in finalists if c.id not in settled), *(c.id for c in rest)),
        scores=scores,
        marks={**found.marks, **known},
        reason=found.reason,
        readings=found.readings,
        repairs=found.repairs,
        notes=(_told(len(finalists), len(finalists) + len(rest), held),),
    )


_NO_TWO = "one question does not hold two images: they were not looked at side by side"


def _told(shown: int, count: int, held: int) -> str:
    """What a person should know of an order that was not made by looking at everything at once."""
    which = f"all {count}" if shown == count else f"the best {shown} of {count}"
    more = "" if shown <= held else f", {held} at once"
    after = "" if shown == count else "; the others follow by their verdicts"
    return f"one question holds {held} candidates: the order is by a look at {which}{more}{after}"
