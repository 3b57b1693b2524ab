"""What can stand around any backend: a cache, a record, a ledger. Each is a chat itself; here they are wired.

From the inside out: the ledger counts what was really asked, the cache answers what was asked before, the
record keeps everything that was answered, from wherever it came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Chat

OFF = "off"
"""What is typed to switch one of these off."""


class Around:
    """A chat around another one, like that one in everything that a subclass does not change."""

    def __init__(self, inner: Chat) -> None:
        self.inner = inner

    @property
    def spec(self) -> str:
        """The inner chat's."""
        return self.inner.spec

    @spec.setter
    def spec(self, value: str) -> None:
        self.inner.spec = value

    @property
    def domain(self) -> str:
        """The inner chat's."""
        return self.inner.domain

    @domain.setter
    def domain(self, value: str) -> None:
        self.inner.domain = value

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The inner chat's."""
        return self.inner.capabilities

    @capabilities.setter
    def capabilities(self, value: frozenset[Capability]) -> None:
        self.inner.capabilities = value

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # not set yet, while an object is being copied
            raise AttributeError(name)
        return getattr(self.inner, name)

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        """As the inner chat."""
        return self.reply_within(asks, None)

    def reply_within(self, asks: Sequence[Ask], seconds: float | None) -> list[Reply]:
        """`reply`, given up after so many seconds where the inner chat can do that."""
        return reply_within(self.inner, asks, seconds)

    def known(self, asks: Sequence[Ask]) -> list[Reply | None]:
        """The replies that cost nothing, None for the others."""
        return known(self.inner, asks)


def reply_within(chat: Chat, asks: Sequence[Ask], seconds: float | None) -> list[Reply]:
    """``chat``'s replies, with a limit of seconds where it can keep one."""
    limited = getattr(chat, "reply_within", None)
    if seconds is None or limited is None:
        return chat.reply(asks)
    replies: list[Reply] = limited(asks, seconds)
    return replies


def known(chat: Chat, asks: Sequence[Ask]) -> list[Reply | None]:
    """What ``chat`` can answer without asking a model, None for the rest."""
    found = getattr(chat, "known", None)
    replies: list[Reply | None] = [None] * len(asks) if found is None else found(asks)
    return replies


def layers(chat: Any) -> Iterator[Any]:
    """``chat`` and what stands inside it, from the outside in."""
    while chat is not None:
        yield chat
        chat = chat.inner if isinstance(chat, Around) else None


def around(
    chat: Chat, *, cache: Path | str = "", record: Path | str = "", ledger: Path | str = ""
) -> Chat:
    """``chat`` with what is named around it; empty or ``off`` is none, and what is there stays single.

    Fakes are never cached, since they read what a question's digest does not hold. Raises `InputError`
    when a file cannot be opened or is not of its kind.
    """
    from mmrerank.chat._cache import Cached
    from mmrerank.chat._ledger import Ledgered
    from mmrerank.chat._record import Recorded

    fake = getattr(chat, "fake", False)
    wanted: list[tuple[type[Any], Path | str]] = [
        (Ledgered, "" if fake else ledger),
        (Cached, "" if fake else cache),
        (Recorded, record),
    ]
    for kind, file in wanted:
        there = any(isinstance(layer, kind) for layer in layers(chat))
        if file and str(file).lower() != OFF and not there:
            chat = kind(chat, Path(file).expanduser())
    return chat
