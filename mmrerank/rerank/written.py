"""Answers that the model would not give as one of the labels: asked again as text, whatever the backend.

A label's probability means something where the labels hold a good part of it. Where they hold less than
`Chat.label_share`, or none is known, the same question is asked for a written answer: one of the labels, after
thoughts if the model has any. One that names none is no judgement. The result says how often.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from mmrerank.budget import Meter
from mmrerank.errors import ReplyError
from mmrerank.messages import Ask, Message, Part, Reply
from mmrerank.ports import Chat
from mmrerank.rerank.orders import last_label
from mmrerank.rerank.understood import unreadable

TOKENS = 512
"""Most that may be written: an answer is a word, and models that think do so before it."""
SURE = 0.9
"""Probability that a written label is taken to have; the others share the rest alike."""
Row = tuple[Ask, tuple[Meter, ...]]
_BEGINS = r"(?i)\W*({})\W*(?:[,.;:!\n\u2013\u2014]|$)"


def settled(chat: Chat | None, rows: list[Row], ask_all: Callable[[list[Row]], list[Reply]]) -> list[Reply]:
    """``ask_all(rows)``, where answers whose labels hold too little are written out, within the same meters."""
    replies = ask_all(rows)
    if chat is None or not chat.label_share:
        return replies
    weak = [n for n, (ask, _) in enumerate(rows) if why(ask, replies[n], chat.label_share)]
    if not weak:
        return replies
    answers = ask_all([(in_words(rows[n][0]), rows[n][1]) for n in weak])
    for n, answer in zip(weak, answers, strict=True):
        ask = rows[n][0]
        replies[n] = _joined(ask, replies[n], answer, why(ask, replies[n], chat.label_share))
    return replies


def why(ask: Ask, reply: Reply, least: float) -> str:
    """Why the labels' probabilities are no answer, where they hold less than ``least``; empty where they are.

    A backend that cannot tell their share is believed.
    """
    if not ask.choices:
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
    told = f"\nAnswer with one of these and nothing else: {', '.join(ask.choices)}."
    spoken = Message(role=last.role, parts=(*last.parts, Part(text=told)))
    return replace(
        ask,
        messages=(*before, spoken),
        choices=(),
        exact=False,
        think=False,
        max_tokens=TOKENS,
        useful=lambda reply: reply.error is None and named(reply.text, ask.choices) is not None,
    )


def named(text: str, labels: Sequence[str]) -> str | None:
    """The label that a written answer gives: alone, at its beginning before a pause, or as its last words.

    >>> named("Yes, it shows a boat.", ("yes", "no")), named("No boat is to be seen", ("yes", "no"))
    ('yes', None)
    """
    text = text.strip()
    if found := last_label(text, labels):
        return found
    words = {n.casefold(): n for n in labels if len(n) > 1}
    if words and (begins := re.match(_BEGINS.format("|".join(map(re.escape, words))), text)):
        return words[begins[1].casefold()]
    return last_label(text.splitlines()[-1], labels) if text else None


def told(written: int, asked: int, least: float) -> tuple[str, ...]:
    """The sentence of a result in which so many of the answers ``asked`` for were written out."""
    if not written:
        return ()
    return (
        f"{written} of {asked} answers were asked for again as text: the labels held less than {least:g} of "
        "the probability, or were not listed (--chat-option label_share=0 never asks again)",
    )


def _joined(ask: Ask, first: Reply, answer: Reply, reason: str) -> Reply:
    """The written answer as a reply to ``ask``, with what both cost."""
    usage = first.usage + answer.usage
    notes = tuple(dict.fromkeys((*first.notes, *answer.notes)))
    if answer.error is not None:
        return replace(answer, usage=usage, written=True)
    label = named(answer.text, ask.choices)
    if label is None:
        lost = ReplyError(f"{reason}; asked again as text, {unreadable(answer)}", kind="labels")
        return Reply(error=lost, finish="error", usage=usage, written=True)
    rest = (1 - SURE) / (len(ask.choices) - 1) if len(ask.choices) > 1 else SURE
    values = {n: math.log(SURE if n == label else rest) for n in ask.choices}
    return Reply(text=answer.text, logprobs=values, usage=usage, notes=notes, written=True)
