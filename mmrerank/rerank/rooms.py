"""What the model at hand can hold in one question: the driver says so while a method makes its questions.

No method knows a model. One that would show more than fits asks `room` first; where nobody said anything,
everything is taken to fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from mmrerank.messages import Room
from mmrerank.ports import Chat

Switch = Literal["auto", "true", "false"]
"""An option that the model's row in the catalogue decides, or the method, where it is left at ``auto``."""
_room: ContextVar[Room] = ContextVar("room of a question", default=Room())  # noqa: B039 # frozen


@contextmanager
def within(chat: Chat | None) -> Iterator[None]:
    """Within it, questions are for ``chat``."""
    token = _room.set(chat.room if chat is not None else Room())
    try:
        yield
    finally:
        _room.reset(token)


def room() -> Room:
    """What one question may hold here."""
    return _room.get()


def sized(brief: int, full: int) -> int:
    """The tokens of a reply: ``brief`` for a model that writes notes of few words, else ``full``."""
    return brief if room().brief else full


def settled(name: str, value: Switch) -> Switch:
    """``value`` of the option ``name``, or what ``auto`` means for the model at hand."""
    if value != "auto":
        return value
    said = room().auto.get(name, value)
    return said if said in ("true", "false") else "auto"  # type: ignore[return-value]
