"""What can stand around any backend: a cache, a record, a ledger. Each is a chat itself; here they are wired.

From the inside out: the ledger counts what was really asked, the cache answers what was asked before, the
record keeps everything that was answered, from wherever it came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrerank.answering import Numbered, in_order, numbered
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Chat, ChatFacts, Room
from mmrerank.types import Usage

OFF = "off"
"""What is typed to switch one of these off."""


class Around(Chat):
    """A chat around another one, like that one in everything that a subclass does not change."""

    def __init__(self, inner: Chat) -> None:
        self.inner = inner
        self.fake = inner.fake
        self.concurrency = inner.concurrency
        self.group = inner.group

    @property
    def spec(self) -> str:  # type: ignore[override] # follows the inner chat's
        """The inner chat's."""
        return self.inner.spec

    @property
    def domain(self) -> str:  # type: ignore[override]
        """The inner chat's."""
        return self.inner.domain

    @property
    def prompts(self) -> str:  # type: ignore[override]
        """The inner chat's."""
        return self.inner.prompts

    @property
    def label_share(self) -> float:  # type: ignore[override]
        """The inner chat's."""
        return self.inner.label_share

    @property
    def room(self) -> Room:  # type: ignore[override]
        """The inner chat's."""
        return self.inner.room

    @property
    def capabilities(self) -> frozenset[Capability]:  # type: ignore[override]
        """The inner chat's."""
        return self.inner.capabilities

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """The inner chat's."""
        return self.inner.fingerprint

    @property
    def settings(self) -> Mapping[str, Any]:  # type: ignore[override]
        """The inner chat's."""
        return self.inner.settings

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        """As the inner chat."""
        return self.reply_within(asks, None)

    def reply_within(self, asks: Sequence[Ask], seconds: float | None) -> list[Reply]:
        """`reply`, given up after so many seconds where the inner chat can do that."""

        def whole(some: Sequence[Ask]) -> Numbered:
            yield from numbered(self.inner.reply_within(some, seconds), some, self.spec)

        return in_order(self.passed(asks, whole))

    def reply_each(self, asks: Sequence[Ask], seconds: float | None = None) -> Numbered:
        """As the inner chat."""
        return self.passed(asks, lambda some: self.inner.reply_each(some, seconds))

    def passed(self, asks: Sequence[Ask], ask: Callable[[Sequence[Ask]], Numbered]) -> Numbered:
        """Replies to ``asks`` by way of ``ask``, which asks the inner chat: what a subclass changes."""
        yield from ask(asks)

    def known(self, asks: Sequence[Ask]) -> list[Reply | None]:
        """The replies that cost nothing, None for the others."""
        return self.inner.known(asks)

    def bound(self, ask: Ask) -> Usage:
        """As the inner chat."""
        return self.inner.bound(ask)

    def cancel(self) -> None:
        """As the inner chat."""
        self.inner.cancel()

    def close(self) -> None:
        """As the inner chat."""
        self.inner.close()

    def facts(self) -> ChatFacts:
        """As the inner chat."""
        return self.inner.facts()

    def models(self) -> list[str] | None:
        """As the inner chat."""
        return self.inner.models()


def layers(chat: Any) -> Iterator[Any]:
    """``chat`` and what stands inside it, from the outside in."""
    while chat is not None:
        yield chat
        chat = chat.inner if isinstance(chat, Around) else None


def around(
    chat: Chat,
    *,
    cache: Path | str = "",
    record: Path | str = "",
    ledger: Path | str = "",
    prompts: str | None = None,
) -> Chat:
    """``chat`` with what is named around it; empty or ``off`` is none, and what is there stays single.

    ``prompts`` is the folder of a prompt profile, "" the product's own; None leaves the chat its own.

    Fakes are never cached, since they read what a question's digest does not hold. Raises `InputError`
    when a file cannot be opened or is not of its kind.
    """
    from mmrerank.chat.around.cache import Cached
    from mmrerank.chat.around.ledger import Ledgered
    from mmrerank.chat.around.prompted import Prompted
    from mmrerank.chat.around.record import Recorded

    wanted: list[tuple[type[Any], Path | str]] = [
        (Ledgered, "" if chat.fake else ledger),
        (Cached, "" if chat.fake else cache),
        (Recorded, record),
    ]
    for kind, file in wanted:
        there = any(isinstance(layer, kind) for layer in layers(chat))
        if file and str(file).lower() != OFF and not there:
            chat = kind(chat, Path(file).expanduser())
    return chat if prompts in (None, chat.prompts) else Prompted(chat, prompts)
