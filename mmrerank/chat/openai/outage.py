"""Whether a server answers at all, so that what waits in line is not sent after it has stopped.

A few failures of one kind in a row, whose cause lies outside of the questions, are an outage: what was asked
for before it was noticed fails with it, unsent. What is asked later is sent again and shows whether it lasts.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from mmrerank.errors import LASTING, ChatError

IN_A_ROW = 8
"""More than a gateway deals by chance that sends one question in fifty to the wrong place."""
IN_A_ROW_OF = {"forbidden": 16}
"""Of failures that may be the questions' own after all, such as pictures that a policy forbids."""
TRIED_AGAIN = 3
"""Of failures that were tried again in vain before, or that ask to wait longer than anybody waits here."""


@dataclass(kw_only=True)
class Outage:
    """Counts failures between answers."""

    error: ChatError | None = None
    _noticed: float = 0.0
    _counts: Counter[str] = field(default_factory=Counter)

    def note(self, error: ChatError | None) -> None:
        """Counts how a question ended; a failure of its own shows that the server is there."""
        if error is None or not (error.systemic or error.kind in LASTING):
            self._counts.clear()
            self.error = None
            return
        self._counts = Counter({error.kind: self._counts[error.kind] + 1})
        most = IN_A_ROW_OF.get(error.kind, IN_A_ROW)
        if self._counts[error.kind] >= (TRIED_AGAIN if error.systemic and error.retryable else most):
            self.error, self._noticed = error, time.monotonic()

    def since(self, asked: float) -> ChatError | None:
        """The failure of an outage that was noticed after the time ``asked`` (`time.monotonic`), or None."""
        return self.error if asked <= self._noticed else None
