"""Thoughts before a choice: for any backend, two turns of a conversation that count as one question.

First the model writes its thoughts, then it is asked for the answer alone, whose log-probabilities are read.
The thoughts come back as the reply's text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mmrerank.chat.text import quoted_back
from mmrerank.messages import Ask, Message, Part, Reply

ANSWER = "Now answer, without another word."
"""What is written after the thoughts."""


def with_thoughts(asks: Sequence[Ask], reply: Callable[[Sequence[Ask]], list[Reply]]) -> list[Reply]:
    """``reply(asks)``, where asks that want thoughts before their choices get them.

    An ask whose thoughts failed has failed; one whose thoughts ran out of room answers all the same.
    """
    wanted = [n for n, ask in enumerate(asks) if ask.think and ask.choices]
    if not wanted:
        return reply(asks)
    thoughts = reply([replace(asks[n], choices=(), schema=None, think=False) for n in wanted])
    thoughts_by_place = dict(zip(wanted, thoughts, strict=True))
    failed = {n for n, r in thoughts_by_place.items() if r.error is not None}
    second = [
        replace(ask, messages=_after(ask, thoughts_by_place[n].text), think=False)
        if n in thoughts_by_place
        else ask
        for n, ask in enumerate(asks)
        if n not in failed
    ]
    answers = iter(reply(second) if second else [])  # a backend is never asked nothing
    return [
        thoughts_by_place[n] if n in failed else _joined(thoughts_by_place.get(n), next(answers))
        for n in range(len(asks))
    ]


def _after(ask: Ask, thoughts: str) -> tuple[Message, ...]:
    written = Message(role="assistant", parts=(Part(text=quoted_back(thoughts)),))
    return (*ask.messages, written, Message(role="user", parts=(Part(text=ANSWER),)))


def _joined(thought: Reply | None, answer: Reply) -> Reply:
    """The answer with its thoughts, which cost tokens and time but are no question of their own."""
    if thought is None:
        return answer
    usage = thought.usage + answer.usage
    return replace(
        answer,
        text=thought.text if answer.error is None else "",
        notes=tuple(dict.fromkeys((*thought.notes, *answer.notes))),
        usage=replace(usage, calls=answer.usage.calls),
    )
