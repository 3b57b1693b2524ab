"""Answers out of a record: ``replay:FILE``. No model is asked; a question that was not recorded fails.

A digest that stands there more than once is answered in turn, and with its last reply from then on. Replies
come with what they cost when they were recorded.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from mmrerank.chat.around.record import FORMAT
from mmrerank.chat.around.replies import UNREADABLE, from_plain
from mmrerank.errors import ChatError, InputError, UsageError
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Chat
from mmrerank.reading import whole

FORM = "replay:FILE"


class Replay(Chat):
    """Holds a whole record in memory, by digest."""

    fake = True

    def __init__(self, path: Path) -> None:
        self.spec = f"replay:{path}"
        self.path = path
        offers: set[Capability] = set()
        self._replies: dict[str, deque[Reply]] = {}
        self._lock = threading.Lock()
        known = get_args(Capability)
        for number, line in enumerate(_lines(path), start=1):
            try:
                body = json.loads(line)
                if "record" in body:
                    if body["record"] != FORMAT:
                        raise InputError(f"{path} is a record of another format than {FORMAT}")
                    offers |= {c for c in known if c in body["capabilities"]}
                    self.domain = str(body.get("domain", ""))
                    continue
                states = base64.b64decode(body["states"]) if "states" in body else None
                reply = from_plain(body["reply"], states)
                self._replies.setdefault(body["digest"], deque()).append(reply)
            except UNREADABLE as error:
                raise InputError(
                    f"{path}, line {number} is no line of a record ({error!r}); --record FILE makes one"
                ) from error
        self.capabilities: frozenset[Capability] = frozenset(offers)

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        """The recorded replies; one with an error where a question was not recorded."""
        with self._lock:
            return [self._answer(ask) for ask in asks]

    def _answer(self, ask: Ask) -> Reply:
        try:
            digest = ask.digest()
        except OSError as error:
            return Reply(error=ChatError(f"an image cannot be read: {error}"), finish="error")
        queue = self._replies.get(digest)
        if not queue:
            what = f"{ask.kind or 'a'} question {digest[:12]}"
            missing = ChatError(f"the record {self.path} holds no answer to the {what}")
            return Reply(error=missing, finish="error")
        return queue.popleft() if len(queue) > 1 else queue[0]


def _lines(path: Path) -> list[str]:
    try:
        text = whole(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the record {str(path)!r} cannot be read: {error}") from error
    # what a kill cut short stands behind the last line break
    return text.split("\n")[:-1]


def open(rest: str) -> Replay:
    """Reads the record ``FILE``. Raises `UsageError` without one, `InputError` for a wrong line."""
    if not rest:
        raise UsageError("replay needs a record: replay:FILE, as --record FILE wrote it")
    return Replay(Path(rest).expanduser())
