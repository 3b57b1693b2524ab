"""Stopping a ranking that is under way: the caller sets an event, and no further question is sent.

The driver heeds the event for its threads (`heeding`); a backend that waits for long looks at `cancelled`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from mmrerank.errors import CancelledError

_event: ContextVar[threading.Event | None] = ContextVar("cancel", default=None)


@contextmanager
def heeding(event: threading.Event | None) -> Iterator[None]:
    """Within it, in this thread, `cancelled` tells of ``event``."""
    token = _event.set(event)
    try:
        yield
    finally:
        _event.reset(token)


def cancelled() -> bool:
    """Whether the work of this thread is no longer wanted."""
    event = _event.get()
    return event is not None and event.is_set()


def heeded() -> bool:
    """Whether anybody could cancel the work of this thread."""
    return _event.get() is not None


def check() -> None:
    """Raises `CancelledError` where the work of this thread is no longer wanted."""
    if cancelled():
        raise CancelledError("the ranking was cancelled; nothing further is asked")
