"""A fake that recites: ``scripted:FILE`` (JSON lines), or from Python `Scripted`. For tests and replays.

A line is ``{"kind", "match", "reply" | "logprobs" | "error"}``. It answers asks of its ``kind`` (any, if
absent) whose prompt holds the text ``match`` (any, if absent). Lines with the same kind and match are
recited in turn and the last one for ever; a line with a match goes before one without. No model is asked.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmrerank.errors import ChatError, InputError, UsageError
from mmrerank.messages import Ask, Reply
from mmrerank.ports import Capability, Chat
from mmrerank.reading import whole
from mmrerank.types import Usage

FORM = "scripted:FILE"
Answer = str | Mapping[str, Any] | Reply
"""A text, an object that is sent as JSON, or a whole reply."""
_KEYS = {"kind", "match", "reply", "logprobs", "error"}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a script; an empty ``kind`` or ``match`` fits every ask."""

    answer: Answer
    kind: str = ""
    match: str = ""


class Scripted(Chat):
    """Answers from ``replies``: answers in turn, the last one for ever; lines; or a function of the ask."""

    fake = True

    def __init__(self, replies: Sequence[Answer | Line] | Callable[[Ask], Answer]) -> None:
        self.spec = "scripted"
        self.capabilities: frozenset[Capability] = frozenset({"generate", "choice_logprobs"})
        self.asks: list[Ask] = []
        self._function = replies if callable(replies) else None
        self._queues: dict[tuple[str, str], list[Answer]] = {}
        self._lock = threading.Lock()
        for item in () if callable(replies) else replies:
            line = item if isinstance(item, Line) else Line(answer=item)
            self._queues.setdefault((line.kind, line.match), []).append(line.answer)

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        """Recites; an ask that no line fits gets a reply with an error. ``asks`` remembers them all."""
        with self._lock:
            self.asks.extend(asks)
            answers = [self._answer(ask) for ask in asks]
        return [as_reply(ask, answer) for ask, answer in zip(asks, answers, strict=True)]

    def _answer(self, ask: Ask) -> Answer:
        if self._function is not None:
            return self._function(ask)
        prompt = "\n\n".join(m.text for m in ask.messages)
        fitting = [
            (kind, match) for kind, match in self._queues if kind in ("", ask.kind) and match in prompt
        ]
        if not fitting:
            error = ChatError(f"the script has no line for an ask of kind {ask.kind!r}")
            return Reply(error=error, finish="error")
        queue = self._queues[max(fitting, key=lambda key: (bool(key[1]), bool(key[0])))]
        return queue.pop(0) if len(queue) > 1 else queue[0]


def as_reply(ask: Ask, answer: Answer) -> Reply:
    """``answer`` as a reply, with the usage that a fake can know: words count as tokens."""
    if not isinstance(answer, Reply):
        answer = Reply(text=answer if isinstance(answer, str) else json.dumps(answer))
    parts = [p for m in ask.messages for p in m.parts]
    usage = Usage(
        calls=1,
        input_tokens=sum(len(p.text.split()) for p in parts if p.text),
        output_tokens=len(answer.text.split()),
        images=sum(p.image is not None for p in parts),
    )
    return answer if answer.usage != Usage() else replace(answer, usage=usage)


def lines(path: str, keys: set[str], what: str) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file. Raises `InputError` naming the line that is wrong."""
    try:
        text = whole(Path(path).expanduser()).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the {what} {path!r} cannot be read: {error}") from error
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(item, dict) or not item.keys() <= keys:
            raise InputError(f"{path}, line {number}: a line is an object with {', '.join(sorted(keys))}")
        found.append(item)
    return found


def open(rest: str) -> Scripted:
    """Reads the script ``FILE``. Raises `UsageError` without one, `InputError` for a wrong line."""
    if not rest:
        raise UsageError("scripted needs a file of replies: scripted:FILE")
    script = []
    for item in lines(rest, _KEYS, "script"):
        if len({"reply", "logprobs", "error"} & item.keys()) != 1:
            raise InputError(f"{rest}: a line has one of reply, logprobs and error; one has {sorted(item)}")
        answer: Answer
        if "error" in item:
            answer = Reply(error=ChatError(str(item["error"])), finish="error")
        elif "logprobs" in item:
            answer = Reply(logprobs={str(k): float(v) for k, v in item["logprobs"].items()})
        else:
            answer = item["reply"] if isinstance(item["reply"], str) else json.dumps(item["reply"])
        script.append(Line(answer=answer, kind=item.get("kind", ""), match=item.get("match", "")))
    chat = Scripted(script)
    chat.spec = f"scripted:{rest}"
    return chat
