"""Replies on their way from a backend: numbered by their questions, in whatever order they come. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import Any

from mmrerank import cancel
from mmrerank.errors import BudgetError, ReplyError
from mmrerank.messages import Ask, Reply

Numbered = Generator[tuple[int, Reply], None, None]
"""Replies as they come, each with the place of its question. Closing it gives up the rest."""


def numbered(found: Any, asks: Sequence[Ask], name: str) -> list[tuple[int, Reply]]:
    """What a backend gave for ``asks``, with places. Raises `ReplyError` for another count."""
    if not isinstance(found, Sequence) or len(found) != len(asks):
        count = len(found) if isinstance(found, Sequence) else "no list of"
        raise ReplyError(f"{name} gave {count} replies to {len(asks)} questions")
    return list(enumerate(found))


def in_order(found: Iterable[tuple[int, Reply]]) -> list[Reply]:
    """Replies in the order of their questions."""
    return [reply for _, reply in sorted(found, key=lambda row: row[0])]


def ending(seconds: float | None) -> float | None:
    """When so many seconds from now are over, on `time.monotonic`'s clock; None for never."""
    return None if seconds is None else time.monotonic() + seconds


def over(end: float | None) -> bool:
    """Whether the time is over."""
    return end is not None and time.monotonic() >= end


def in_parts(
    ask_part: Callable[[Sequence[Ask]], Any], asks: Sequence[Ask], size: int, name: str, end: float | None
) -> Numbered:
    """``ask_part(some)`` of so many of ``asks`` at a time, until ``end``; between them, a ranking can end."""
    for start in range(0, len(asks), size):
        if start:
            cancel.check()
            if over(end):
                return
        part = asks[start : start + size]
        for place, reply in numbered(ask_part(part), part, name):
            yield start + place, reply


def filled(found: Numbered, count: int, end: float | None) -> Numbered:
    """``found``, and where the time ended it early a `BudgetError` for the others of ``count`` questions."""
    left = dict.fromkeys(range(count))
    with closing(found):
        for place, reply in found:
            left.pop(place, None)
            yield place, reply
    if over(end):
        late = BudgetError("not answered when the time was over")
        for place in left:
            yield place, Reply(error=late, finish="error")
