"""When failures are no longer single questions' own: the run ends, with the reason, instead of going on.

A spent quota, a wrong key or a server that is gone would fail every question that is left. A few failures of
one kind in a row, or nothing but such failures, end the run; an answer in between shows that it goes on.
Where there were answers before, plain questions have the last word: a gateway that now and then sends a
question to the wrong place does so several times in a row too, in a run of hours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmrerank.errors import LASTING, ChatError
from mmrerank.messages import Reply

IN_A_ROW = 3
"""Failures of one kind without an answer between them that end a run."""
AMBIGUOUS = frozenset({"forbidden"})
"""Kinds that may be one picture's own fault. They, and those of `LASTING`, end a run when several queries
have them and a plain question fails as well, or `MANY` stand in a row."""
MANY = 16
"""Failures of one kind in a row that end a run, whatever a plain question says."""
PLAIN = 5
"""Plain questions that must all fail before a run with answers ends: one may have bad luck of its own. Of
failures that a backend has tried again already, one is enough."""
IN_A_ROW_OF_LASTING = 8
"""As `IN_A_ROW`, of failures that pass as a rule, each of which was tried several times: over several
queries."""


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
    return error is not None and _counts(error) and error.kind not in AMBIGUOUS


def _counts(error: ChatError) -> bool:
    return error.systemic or error.kind in LASTING


@dataclass(kw_only=True)
class Watch:
    """Counts failures over all rankings of one run, of one thread or of several."""

    answered: bool = False
    """Whether any question was ever answered."""
    plain: Callable[[], ChatError | None] = lambda: ChatError("nobody is there", kind="unreachable")
    """How a plain question fails now, None where it is answered."""
    _tested: bool = False
    _count: int = 0
    _kind: str = ""
    _of: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, reply: Reply, ranking: int) -> None:
        """Counts a reply to a question of ``ranking``, any number of its own. Raises `Stopped`."""
        error = reply.error
        with self._lock:
            if error is None or not _counts(error):
                # what a cache answers, or a budget refuses, says nothing of the server
                if reply.usage.calls:
                    self._count, self._kind = 0, ""
                    self._tested = False
                    self._of.clear()
                self.answered = self.answered or error is None
                return
            if self._tested and not reply.usage.calls:
                return  # given up unsent, with others that failed: no further sign
            if error.kind != self._kind:
                self._count, self._kind = 0, error.kind
                self._of.clear()
            self._count += 1
            self._of.add(ranking)
            lasting = not error.systemic
            own = (lasting or error.kind in AMBIGUOUS) and len(self._of) < 2
            if own or self._count < (IN_A_ROW_OF_LASTING if lasting else IN_A_ROW):
                return
            doubtful = lasting or error.kind in AMBIGUOUS or self.answered
            if doubtful and self._count < MANY:
                self._tested = self._tested or self._works(lasting)
                if self._tested:
                    return
            raise Stopped(error, f"stopped after {self._count} failures of this kind in a row")

    def nothing(self, error: ChatError) -> None:
        """Called where a whole round of rankings got no answer but ``error``. Raises `Stopped`."""
        own = error.kind in AMBIGUOUS or not error.systemic
        if not own or not (self.answered or self._works(not error.systemic)):
            raise Stopped(error, "no question was answered")

    def _works(self, lasting: bool) -> bool:
        """Whether a plain question gets through, or fails for what passes; that counts if ``lasting``."""
        for _ in range(PLAIN):
            error = self.plain()
            if error is None or not (error.systemic or (lasting and _counts(error))):
                return True
            if error.retryable:
                break
        return False
