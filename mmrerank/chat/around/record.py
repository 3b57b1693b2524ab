"""A record of everything a model was asked and answered: JSON lines, for audits and for ``replay:FILE``.

The first line of a session names the model; every other one is a question's digest, its prompt in words and
its reply. Lines are only added, whole, also by several processes at once.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from mmrerank import writing
from mmrerank.answering import Numbered
from mmrerank.chat.around import Around
from mmrerank.chat.around.replies import packed, to_plain
from mmrerank.errors import ChatError, InputError
from mmrerank.locks import lock
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Chat

FORMAT = 1


class Recorded(Around):
    """Writes what passes into the file at ``path``. Raises `InputError` when that cannot be written."""

    def __init__(self, inner: Chat, path: Path) -> None:
        super().__init__(inner)
        self.path = path
        self._begun = False
        self._lock = threading.Lock()
        self._add([])  # a file that cannot be written is reported before anything is paid for

    def passed(self, asks: Sequence[Ask], ask: Callable[[Sequence[Ask]], Numbered]) -> Numbered:
        """The inner chat's replies, written down in the order of the questions."""
        replies: dict[int, Reply] = {}
        try:
            with closing(ask(asks)) as found:
                for place, reply in found:
                    replies[place] = reply
                    yield place, reply
        finally:
            self._write([(asks[place], replies[place]) for place in sorted(replies)])

    def known(self, asks: Sequence[Ask]) -> list[Reply | None]:
        """What costs nothing, written down as well."""
        found = self.inner.known(asks)
        self._write([(a, r) for a, r in zip(asks, found, strict=True) if r is not None])
        return found

    def _write(self, rows: list[tuple[Ask, Reply]]) -> None:
        if not rows:
            return
        with self._lock:
            head = [] if self._begun else [self._head()]
            self._add([*head, *(_line(ask, reply) for ask, reply in rows)])
            self._begun = True

    def _head(self) -> dict[str, Any]:
        try:
            offers = sorted(self.inner.capabilities)
        except ChatError:  # a server that refuses; its answers say so themselves
            offers = ["generate"]
        return {
            "record": FORMAT, "spec": self.inner.spec, "capabilities": offers, "domain": self.inner.domain,
        }  # fmt: skip

    def _add(self, lines: list[dict[str, Any]]) -> None:
        data = "".join(json.dumps(line) + "\n" for line in lines).encode("ascii")
        try:
            with open(writing.private_file(self.path), "ab", buffering=0) as file:  # noqa: PTH123 - of a handle
                lock(file, wait=True)
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
        except OSError as error:
            raise InputError(
                f"the record {self.path} cannot be written: {error.strerror or error}"
            ) from error


def _line(ask: Ask, reply: Reply) -> dict[str, Any]:
    try:
        digest = ask.digest()
    except OSError:  # its image is gone, which its reply says
        digest = ""
    states = packed(reply)
    return {
        "digest": digest,
        "kind": ask.kind,
        "prompt": ask.transcript,
        "reply": to_plain(reply),
        **({"states": base64.b64encode(states).decode()} if states else {}),
    }
