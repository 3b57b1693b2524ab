"""Answers that the model would not give as one of the labels: asked again as text, whatever the backend.

A label's probability means something where the labels hold a good part of it. Where they hold less than
`Chat.label_share`, or none is known, the same question is asked for a written answer: one of the labels,
under a schema where the backend has them, after thoughts if the model has any. One that names none is no
judgement. The result says how often.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mmrerank.budget import Meter
from mmrerank.errors import ReplyError
from mmrerank.messages import Ask, Message, Part, Reply
from mmrerank.ports import Chat
from mmrerank.rerank.orders import last_label
from mmrerank.rerank.parse import answer, text_of
from mmrerank.rerank.parse import named as keys
from mmrerank.rerank.replies import object_of
from mmrerank.rerank.understood import unreadable
from mmrerank.rerank.wording import known_labels, label_of

TOKENS = 512
"""Most that may be written: an answer is a word, and models that think do so before it."""
SURE = 0.9
"""Probability that a written label is taken to have; the others share the rest alike."""
_TAIL = 200  # characters of a last line that are looked at
_SHAPE = '{"answer": "..."}'
_NAMES = keys(answer=("choice", "label", "verdict", "best", "result", "response", "value"))
Row = tuple[Ask, tuple[Meter, ...]]
Heard = Callable[[int, Reply], None]
_BEGINS = r"(?i)\W*({})\W*(?:[,.;:!\n\u2013\u2014]| - |$)"
_ENDS = r"(?i).*\b({})\W*$"


def settled(
    chat: Chat | None, rows: Sequence[Row], ask_all: Callable[[Sequence[Row], Heard], object], heard: Heard
) -> None:
    """`ask_all`, where answers whose labels hold too little are written out within the same meters.

    Both functions are told the place of a row and its reply as soon as that is there.
    """
    least = 0.0 if chat is None else chat.label_share
    weak: dict[int, tuple[Reply, str]] = {}

    def first(n: int, reply: Reply) -> None:
        if reason := why(rows[n][0], reply, least):
            weak[n] = reply, reason
        else:
            heard(n, reply)

    ask_all(rows, first)
    places = list(weak)
    if places:
        again = [(in_words(rows[n][0]), rows[n][1]) for n in places]
        ask_all(
            again, lambda m, answer: heard(places[m], joined(rows[places[m]][0], *weak[places[m]], answer))
        )


def why(ask: Ask, reply: Reply, least: float) -> str:
    """Why the labels' probabilities are no answer, where they hold less than ``least``; empty where they are.

    A backend that cannot tell their share is believed, and any where ``least`` is 0.
    """
    if not ask.choices or not least:
        return ""
    if reply.error is not None:
        return str(reply.error) if reply.error.kind == "labels" else ""
    if reply.mass is None or not reply.mass < math.log(least):
        return ""
    share = math.exp(reply.mass)
    return f"the labels {', '.join(ask.choices)} hold {share:.2g} of the probability, less than {least:g}"


def in_words(ask: Ask) -> Ask:
    """``ask`` for a written answer: one of its labels."""
    *before, last = ask.messages
    told = (
        f"\nAnswer with one of these and nothing else: {', '.join(ask.choices)}. Write it as JSON: {_SHAPE}"
    )
    spoken = Message(role=last.role, parts=(*last.parts, Part(text=told)))
    return replace(
        ask,
        messages=(*before, spoken),
        choices=(),
        exact=False,
        think=False,
        schema=object_of({"answer": {"type": "string", "enum": list(ask.choices)}}),
        max_tokens=TOKENS,
        useful=lambda reply: reply.error is None and given(reply, ask.choices) is not None,
    )


def given(reply: Reply, labels: Sequence[str]) -> str | None:
    """The label that a written reply gives, in JSON or in words."""
    body, _ = answer(reply, _NAMES, ("answer",))
    found = label_of(body.get("answer"), known_labels(labels)) if body else None
    return found or named(text_of(reply), labels)


def named(text: str, labels: Sequence[str]) -> str | None:
    """The label that a written answer gives: alone, at its beginning before a pause, or as its last words.

    >>> named("Yes, it shows a boat.", ("yes", "no")), named("No boat is to be seen", ("yes", "no"))
    ('yes', None)
    """
    text = text.strip()
    if found := last_label(text, labels):
        return found
    end = text.splitlines()[-1][-_TAIL:] if text else ""
    words = {n.casefold(): n for n in labels if len(n) > 1}
    either = "|".join(map(re.escape, words))
    begins = re.match(_BEGINS.format(either), text) if words else None
    alone = len({w.casefold() for w in re.findall(rf"(?i)\b(?:{either})\b", end)}) == 1
    ends = re.match(_ENDS.format(either), end) if words and alone else None
    said = {words[m[1].casefold()] for m in (begins, ends) if m}
    return said.pop() if len(said) == 1 else None if said else last_label(end, labels)


@dataclass(kw_only=True)
class Written:
    """How many of a ranking's answers by label were asked for again."""

    asked: int = 0
    again: int = 0
    lost: int = 0

    def note(self, ask: Ask, reply: Reply) -> None:
        """Counts ``reply``."""
        self.asked += bool(ask.choices)
        self.again += reply.written
        self.lost += reply.written and reply.error is not None

    @property
    def told(self) -> tuple[str, ...]:
        """The sentence of the result; none where none was asked for again."""
        if not self.again:
            return ()
        lost = f", and {self.lost} of these gave no label either" if self.lost else ""
        return (
            f"{self.again} of {self.asked} answers were asked for again as text, since the labels held too "
            f"little of the probability{lost} (--chat-option label_share=0 takes what they hold)",
        )


def joined(ask: Ask, first: Reply, reason: str, told: Reply) -> Reply:
    """The written answer as a reply to ``ask``, with what both cost."""
    # as with thoughts before an answer: tokens and time, but one question
    calls = max(first.usage.calls, told.usage.calls)
    usage = replace(first.usage + told.usage, calls=calls)
    notes = tuple(dict.fromkeys((*first.notes, *told.notes)))
    if told.error is not None:
        return replace(told, usage=usage, written=True)
    label = given(told, ask.choices)
    if label is None:
        lost = ReplyError(f"{reason}; asked again as text, {unreadable(told)}", kind="labels")
        return Reply(error=lost, finish="error", usage=usage, written=True)
    rest = (1 - SURE) / (len(ask.choices) - 1) if len(ask.choices) > 1 else SURE
    values = {n: math.log(SURE if n == label else rest) for n in ask.choices}
    return Reply(text=told.text, logprobs=values, usage=usage, notes=notes, written=True)
