"""Thoughts before a choice: for any backend, two turns of a conversation that count as one question.

First the model writes its thoughts, then it is asked for the answer alone, whose log-probabilities are read.
The thoughts come back as the reply's text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

from mmrerank.answering import Numbered, in_order
from mmrerank.chat.text import quoted_back
from mmrerank.messages import Ask, Message, Part, Reply

ANSWER = "Now answer, without another word."
"""What is written after the thoughts."""


def with_thoughts(asks: Sequence[Ask], reply: Callable[[Sequence[Ask]], list[Reply]]) -> list[Reply]:
    """``reply(asks)``, where asks that want thoughts before their choices get them.

    An ask whose thoughts failed has failed; one whose thoughts ran out of room answers all the same.
    """

    def each(some: Sequence[Ask]) -> Numbered:
        yield from enumerate(reply(some))

    return in_order(each_with_thoughts(asks, each))


def each_with_thoughts(asks: Sequence[Ask], each: Callable[[Sequence[Ask]], Numbered]) -> Numbered:
    """`with_thoughts`, where replies come one by one; all thoughts come before the first answer."""
    wanted = [n for n, ask in enumerate(asks) if ask.think and ask.choices]
    if not wanted:
        yield from each(asks)
        return
    first = [replace(asks[n], choices=(), schema=None, think=False) for n in wanted]
    thoughts: dict[int, Reply] = {}
    with closing(each(first)) as found:
        for n, reply in found:
            if reply.error is None:
                thoughts[wanted[n]] = reply
            else:
                yield wanted[n], reply
    left = [n for n in range(len(asks)) if n in thoughts or n not in set(wanted)]
    second = [
        replace(asks[n], messages=_after(asks[n], thoughts[n].text), think=False)
        if n in thoughts
        else asks[n]
        for n in left
    ]
    if second:  # a backend is never asked nothing
        with closing(each(second)) as found:
            for n, reply in found:
                yield left[n], _joined(thoughts.get(left[n]), reply)


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
