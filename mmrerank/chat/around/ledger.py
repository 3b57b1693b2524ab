"""A ledger of what was spent, by day and model: JSON lines that are only added to, on this machine alone.

Holds counts and names, no question and no answer. What came out of a cache cost nothing and is not in it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, astuple, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from mmrerank import writing
from mmrerank.answering import Numbered
from mmrerank.chat.around import OFF, Around
from mmrerank.errors import InputError
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Chat
from mmrerank.types import Usage

VARIABLE = "MMRERANK_LEDGER"


def default_ledger(environment: Mapping[str, str] | None = None) -> Path | None:
    """The command line's ledger: ``MMRERANK_LEDGER`` (a file, or ``off``), else one in the state folder."""
    env = os.environ if environment is None else environment
    if named := env.get(VARIABLE):
        return None if named.lower() == OFF else Path(named).expanduser()
    state = env.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "mmrerank" / "usage.jsonl"


class Ledgered(Around):
    """Adds what the inner chat spent to the file at ``path``; one that cannot be written is left alone."""

    def __init__(self, inner: Chat, path: Path) -> None:
        super().__init__(inner)
        self.path = path

    def passed(self, asks: Sequence[Ask], ask: Callable[[Sequence[Ask]], Numbered]) -> Numbered:
        """The inner chat's replies, counted, also where the rest is given up."""
        replies: list[Reply] = []
        try:
            with closing(ask(asks)) as found:
                for place, reply in found:
                    replies.append(reply)
                    yield place, reply
        finally:
            if replies:
                self._add(replies)

    def _add(self, replies: Sequence[Reply]) -> None:
        used = sum((r.usage for r in replies), Usage())
        line = {
            "day": datetime.now().astimezone().date().isoformat(),
            "model": self.inner.spec,
            "failed": sum(r.error is not None for r in replies),
            **{k: round(v, 3) for k, v in asdict(used).items()},
        }
        try:
            with open(writing.private_file(self.path), "a", encoding="ascii") as file:  # noqa: PTH123 - of a handle
                file.write(json.dumps(line) + "\n")  # short enough to arrive in one piece
        except OSError:
            # answers that were paid for must not be lost over the note of their price
            return


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one model cost on one day (``YYYY-MM-DD``, local time)."""

    day: str
    model: str
    usage: Usage
    failed: int = 0


def entries(path: Path) -> list[Entry]:
    """The ledger's sums, oldest day first. Raises `InputError` when the file cannot be read."""
    totals: dict[tuple[str, str], tuple[Usage, int]] = {}
    for line in _lines(path):
        try:
            key = (str(line["day"]), str(line["model"]))
            usage = Usage(**{f.name: line[f.name] for f in fields(Usage)})
            if not all(map(math.isfinite, astuple(usage))):
                continue
            before, failed = totals.get(key, (Usage(), 0))
            totals[key] = (before + usage, failed + int(line["failed"]))
        except (KeyError, TypeError, ValueError, OverflowError):
            continue  # a line that a full disk cut short costs itself alone
    return [
        Entry(day=day, model=model, usage=usage, failed=failed)
        for (day, model), (usage, failed) in sorted(totals.items())
    ]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"the ledger {path} cannot be read: {error.strerror or error}") from error
    for line in text.split("\n"):
        try:
            body = json.loads(line)
        except ValueError:
            continue
        if isinstance(body, dict):
            yield body
