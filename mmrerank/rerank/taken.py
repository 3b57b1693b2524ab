"""What is taken of a backend's replies: bounded texts and numbers, or one failed judgement with its reason.

Backends are plug-ins, and replies come from servers, caches and records: anything may stand in them. What
passes here is a `Reply` whose fields are what they should be and that its reader can read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from mmrerank.answering import Numbered
from mmrerank.errors import DATA_ERRORS, ChatError, ReplyError, in_short, one_line
from mmrerank.messages import Ask, Reply
from mmrerank.rerank.parse import MAX_REPLY_CHARS
from mmrerank.rerank.understood import answers
from mmrerank.types import Usage

MOST_OF_USAGE = 1e15
"""Of anything that is counted; sums of so many stay numbers."""
LEAST_LOG, MOST_LOG = -1e4, 700.0
"""Log-probabilities are cut to these: their sums, differences and powers of e stay numbers."""
_NOTES, _NOTE = 20, 500  # notes of a reply that are shown, and characters of one
_FINISH = ("stop", "length", "error")


def asked(ask_all: Callable[[Sequence[Ask]], Numbered], asks: Sequence[Ask], name: str) -> Numbered:
    """The replies to ``asks`` as they come, whatever a backend of that ``name`` brings; a `ChatError` passes.

    Where taking apart the answers of several questions together fails, each that has no reply yet is asked
    again by itself, so that one odd answer costs no other.
    """
    left = dict(enumerate(asks))
    try:
        with closing(ask_all(asks)) as found:
            for place, reply in found:
                if place not in left:
                    raise ReplyError(f"{name} gave more replies than the {len(asks)} questions asked for")
                yield place, taken(left.pop(place), reply, name)
    except DATA_ERRORS as error:
        if len(asks) > 1:
            for place, ask in left.items():
                for _, reply in asked(ask_all, [ask], name):
                    yield place, reply
            return
        odd = ReplyError(f"{name} could not read an answer: {in_short(error)}")
        for place in left:
            yield place, Reply(error=odd, finish="error")
        return
    if left:
        raise ReplyError(f"{name} gave {len(asks) - len(left)} replies to {len(asks)} questions")


def taken(ask: Ask, reply: Any, name: str) -> Reply:
    """``reply`` with sound fields; one with a `ReplyError` where it is none or no reader can read it."""
    try:
        sound = _sound(reply)
        if sound.error is None:
            answers(ask, sound)  # what its reader would raise later, in the midst of a method
        return sound
    except DATA_ERRORS as error:
        return _odd(f"{name} gave an answer that cannot be read: {in_short(error)}", reply)
    except ReplyError as error:
        return _odd(f"{name} gave an answer that cannot be read: {error}", reply)


def _odd(why: str, reply: Any) -> Reply:
    usage = _usage(reply.usage) if isinstance(reply, Reply) else Usage()
    return Reply(error=ReplyError(why), finish="error", usage=usage)


def _sound(reply: Any) -> Reply:
    if not isinstance(reply, Reply):
        raise ReplyError(f"it is a {type(reply).__name__} and no Reply")
    usage = _usage(reply.usage)
    if isinstance(reply.error, ChatError):
        return replace(
            reply,
            text="",
            logprobs={},
            bounds=(),
            states=(),
            scores=(),
            finish="error",
            usage=usage,
            notes=(),
        )
    if reply.error is not None or not isinstance(reply.text, str) or reply.finish not in _FINISH:
        raise ReplyError("its error, text or finish is of the wrong kind")
    notes = [one_line(str(n), _NOTE) for n in list(reply.notes)[:_NOTES]]
    text = reply.text
    if len(text) > MAX_REPLY_CHARS:
        text = text[-MAX_REPLY_CHARS:]
        notes.append(f"replies were read at their last {MAX_REPLY_CHARS:,} characters; the longest have more")
    return replace(
        reply,
        text=_encodable(text),
        logprobs=_logprobs(reply.logprobs),
        mass=None if reply.mass is None else _number(reply.mass),
        bounds=tuple(n for n in reply.bounds if isinstance(n, str)),
        scores=tuple(_number(s) for s in reply.scores),
        logits=bool(reply.logits),
        usage=usage,
        notes=tuple(notes),
    )


def _encodable(text: str) -> str:
    """``text`` without lone surrogates, which no file and no terminal takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _logprobs(found: Mapping[str, Any]) -> dict[str, float]:
    return {k: _number(v) for k, v in found.items() if isinstance(k, str)}


def _number(value: Any) -> float:
    """A float within bounds; NaN stays, which every reader takes for nothing. Raises `TypeError`."""
    if isinstance(value, str | bytes | bool):
        raise TypeError(f"{str(value)[:40]!r} is no number")
    # an integer of 400 digits is compared before it is made a float
    return float(max(min(value, MOST_LOG), LEAST_LOG)) if value == value else math.nan


def _usage(found: Any) -> Usage:
    """What was counted, without numbers that are none, below 0 or beyond all bounds."""
    if not isinstance(found, Usage):
        return Usage()
    return Usage(**{name: value if _counted(value) else 0 for name, value in vars(found).items()})


def _counted(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value < MOST_OF_USAGE and not math.isnan(value)
