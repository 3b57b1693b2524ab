"""When failures are no longer single questions' own: the run ends, with the reason, instead of going on.

A spent quota, a wrong key or a server that is gone would fail every question that is left. A few failures of
one kind in a row, or nothing but such failures, end the run; an answer in between shows that it goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmrerank.errors import ChatError
from mmrerank.messages import Reply

IN_A_ROW = 3
"""Failures of one kind without an answer between them that end a run."""
AMBIGUOUS = frozenset({"forbidden"})
"""Kinds that may be one query's own fault, such as a refused picture: they count when several queries have
them."""


class Stopped(ChatError):
    """A run was ended, since what is left would fail as well. ``reason`` is the failure.

    ``finished`` are the rankings that were complete before, by their places; ``results`` the same as a
    `Reranker` makes them.
    """

    def __init__(self, reason: ChatError, why: str) -> None:
        super().__init__(f"{reason}; {why}", retryable=reason.retryable, kind=reason.kind, systemic=True)
        self.reason, self.why = reason, why
        self.finished: Mapping[int, Any] = {}
        self.results: Mapping[int, Any] = {}


def unreached(error: ChatError | None) -> bool:
    """Whether a question got no answer for a reason that lies outside of it."""
    return error is not None and error.systemic and error.kind not in AMBIGUOUS


@dataclass(kw_only=True)
class Watch:
    """Counts failures over all rankings of one run, of one thread or of several."""

    answered: bool = False
    """Whether any question was ever answered."""
    _count: int = 0
    _kind: str = ""
    _of: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, reply: Reply, ranking: int) -> None:
        """Counts a reply to a question of ``ranking``, any number of its own. Raises `Stopped`."""
        error = reply.error
        with self._lock:
            if error is None or not error.systemic:
                # what a cache answers, or a budget refuses, says nothing of the server
                if reply.usage.calls:
                    self._count, self._kind = 0, ""
                    self._of.clear()
                self.answered = self.answered or error is None
                return
            if error.kind != self._kind:
                self._count, self._kind = 0, error.kind
                self._of.clear()
            self._count += 1
            self._of.add(ranking)
            own = error.kind in AMBIGUOUS and len(self._of) < 2
            if self._count >= IN_A_ROW and not own:
                raise Stopped(error, f"stopped after {self._count} failures of this kind in a row")

    def nothing(self, error: ChatError) -> None:
        """Called where a whole round of rankings got no answer but ``error``. Raises `Stopped`."""
        if error.kind not in AMBIGUOUS or not self.answered:
            raise Stopped(error, "no question was answered")
