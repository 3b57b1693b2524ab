"""Turns a response's bytes into a `Reply`, trusting nothing in it: pure functions, no network."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mmrerank.chat.openai.listing import NoLogprobsError, chosen, complete
from mmrerank.chat.text import thinks_on, without_thinking
from mmrerank.errors import FailureKind, NoRoomError, ReplyError
from mmrerank.messages import Ask, Reply
from mmrerank.types import Usage

CUT = ("length", "max_tokens", "model_length", "max_output_tokens", "max_new_tokens")
"""What servers call it when a reply was cut off, in small letters."""
FILTERED = ("content_filter", "safety", "prohibited_content", "recitation", "blocklist", "spii", "sensitive")
"""What servers call it when a filter ended a reply, in small letters."""
_REFUSAL = re.compile(
    r"\W*(as an ai[^,]{0,40}, |unfortunately,? )?(i'?m |i am |we'?re |we are )?(very |so |really )?"
    r"(sorry|afraid)?[,.;:]?\s*(but |that )?(i|we)"
    r"( am|'?m| are)?\s+(can(no|')?t|can not|won'?t|will not|unable to|not able to|must decline)"
    r"( to)?\s*(help|assist|comply|fulfil|provide|do that|answer|identify|discuss|engage|process|"
    r"rank|judge|with)",
    re.I,
)
_LONGEST_REFUSAL = 600
_SEARCHED = 2**17
"""Characters at the end of a text that are searched for an object."""


def reading(
    ask: Ask, payload: bytes, *, top: int = 0, ids: Mapping[int, str] | None = None, masked: bool = False
) -> Reply:
    """The reply that a response's bytes hold; one with a `ReplyError` and its cost when they hold none.

    ``top`` is how many log-probabilities were asked for; ``ids`` and ``masked`` as in `listing.chosen`.
    """
    try:
        response = json.loads(payload)
    except (ValueError, RecursionError):
        return _no_json(payload)
    choice = _choice(response)
    message = _at(choice, "message")
    if message is None and isinstance(_at(choice, "text"), str):  # as a completion has it
        message = {"content": choice["text"]}
    usage = Usage(
        input_tokens=_count(_at(response, "usage", "prompt_tokens")),
        output_tokens=_count(_at(response, "usage", "completion_tokens")),
    )
    if not isinstance(message, dict):
        start = " ".join(payload[:80].decode("utf-8", "replace").split())
        return _useless(f"the server's response holds no choices; it begins {start!r}", usage)
    finish = str(_at(choice, "finish_reason") or "").casefold()
    if ask.choices:
        try:
            return replace(chosen(ask, choice, asked=top, ids=ids, masked=masked), usage=usage)
        except ReplyError as error:
            unwilling = _unwilling(message, finish) if isinstance(error, NoLogprobsError) else None
            return replace(unwilling or _useless(str(error), kind=type(error)), usage=usage)
    cut = finish in CUT
    content = _text(message.get("content"))
    text = without_thinking(content)
    told: tuple[str, ...] = ()
    if not text.strip() and not cut:
        text, where = _elsewhere(ask, message)
        told = (f"answers were read from {where}: the content beside it was empty",) if text else ()
    error_reply = _unwilling(message, finish, text if refuses(ask, text) else "")
    if error_reply is not None:
        return replace(error_reply, usage=usage)
    if not text.strip():
        thought = _thoughts(response) or thinks_on(content)
        why = "only reasoning" if thought else "no text"
        if cut or thinks_on(content):
            return _useless(f"the model gave {why}{_room(ask, thought)}", usage, kind=NoRoomError)
        return _useless(f"the model gave {why}", usage)
    if cut and ask.schema is not None and "{" not in text:
        start = " ".join(text.split())[:80]
        why = f"the reply was cut off before its JSON object began; it begins {start!r}"
        return _useless(f"{why}{_room(ask, True)}", usage, kind=NoRoomError)
    return Reply(text=text, usage=usage, finish="length" if cut else "stop", notes=told)


def _unwilling(message: Mapping[str, Any], finish: str, refusal: str = "") -> Reply | None:
    """The failed reply of a model or a filter that does not want to answer; None where there is none."""
    if finish in FILTERED:
        why = f"a filter ended the answer ({finish}): leave that picture or text out, or ask another model"
        return _useless(why, reason="content_filter")
    refusal = refusal or _text(message.get("refusal")).strip()
    if not refusal and finish != "refusal":
        return None
    shown = " ".join(refusal.split())[:200]
    why = f"the model refused: {shown!r}; ask another model, or leave out the picture or text that it minds"
    return _useless(why, reason="refusal")


def _room(ask: Ask, thought: bool) -> str:
    """What to do about a reply that its tokens did not suffice for."""
    room = "give it room to think with --chat-option thinking=4096" if thought else "raise it"
    return f" within max_tokens ({ask.max_tokens}); {room}"


def _no_json(payload: bytes) -> Reply:
    start = " ".join(payload[:60].decode("utf-8", "replace").split())
    if not start:
        return _useless("the server's response is not JSON; it is empty")
    why = f"the server's response is not JSON; it begins {start!r}"
    if start.startswith("<"):
        page = "it is a web page: name the base URL of the API, which often ends in /v1, or log in"
        return _useless(f"{why}; {page}", reason="web_page")
    return _useless(why)


def _useless(
    why: str,
    usage: Usage | None = None,
    *,
    kind: type[ReplyError] = ReplyError,
    reason: FailureKind | None = None,
) -> Reply:
    return Reply(error=kind(why, kind=reason), finish="error", usage=usage or Usage())


def _elsewhere(ask: Ask, message: Mapping[str, Any]) -> tuple[str, str]:
    """An answer that stands beside the empty content, and where: in the thoughts, or a tool's arguments.

    Where an object was asked for, only an object is an answer.
    """
    for name in ("reasoning_content", "reasoning"):
        text = without_thinking(_text(message.get(name))).strip()
        if text and (ask.schema is None or (text := last_object(text))):
            return text, name
    calls = message.get("tool_calls")
    listed = [_at(call, "function") for call in calls] if isinstance(calls, list) else []
    for called in (*listed, message.get("function_call")):
        arguments = _at(called, "arguments")
        text = json.dumps(arguments) if isinstance(arguments, dict) else _text(arguments)
        if ask.schema is not None and (text := last_object(text)):
            return text, "tool_calls"
    if ask.schema is not None and isinstance(message.get("parsed"), dict):
        return json.dumps(message["parsed"]), "parsed"
    return "", ""


def last_object(text: str) -> str:
    """The last JSON object of ``text`` that stands on its own; empty without any."""
    text = text[-_SEARCHED:]
    decoder, found, start = json.JSONDecoder(), "", text.find("{")
    for _ in range(200):  # braces that are tried
        if start < 0:
            break
        try:
            _, end = decoder.raw_decode(text, start)
            found = text[start:end]
        except (ValueError, RecursionError):
            end = start + 1
        start = text.find("{", end)
    return found


def refuses(ask: Ask, text: str) -> bool:
    """Whether ``text`` is a plain refusal, such as "I'm sorry, but I can't help with that."."""
    short = text.strip().replace("\u2019", "'")
    if len(short) > _LONGEST_REFUSAL or (ask.schema is not None and last_object(short)):
        return False
    return _REFUSAL.match(short) is not None


def answered_as(payload: bytes, model: str) -> str:
    """The name under which another model than ``model`` answered; empty when it was the one asked for.

    Names count as one when either holds the other: servers add a date, a tag or a folder.
    """
    try:
        answering = _at(json.loads(payload), "model")
    except (ValueError, RecursionError):
        return ""
    if not isinstance(answering, str) or not answering.strip():
        return ""
    one, two = (_bare(n) for n in (answering, model))
    return "" if one in two or two in one else answering[:100]


@dataclass(frozen=True, kw_only=True)
class ServerNotes:
    """What a response says beside its answer."""

    cached_tokens: int = 0
    thought: bool = False


def notes(payload: bytes) -> ServerNotes:
    """Prompt tokens that the server had read before, and whether it sent thoughts."""
    try:
        response = json.loads(payload)
    except (ValueError, RecursionError):
        return ServerNotes()
    cached = _count(_at(response, "usage", "prompt_tokens_details", "cached_tokens"))
    inline = "<think>" in _text(_at(_choice(response), "message", "content"))
    return ServerNotes(cached_tokens=cached, thought=inline or _thoughts(response))


def _thoughts(response: Any) -> bool:
    """Whether a response holds thoughts apart from its text, or was charged for some."""
    message = _at(_choice(response), "message")
    counted = _count(_at(response, "usage", "completion_tokens_details", "reasoning_tokens"))
    return bool(_at(message, "reasoning_content") or _at(message, "reasoning") or counted)


def lists(payload: bytes, ids: Mapping[int, str]) -> bool:
    """Whether a response gives the log-probabilities of all of these tokens."""
    try:
        return complete(_choice(json.loads(payload)), ids)
    except (ValueError, RecursionError):
        return False


def trouble(payload: bytes) -> tuple[Any, int] | None:
    """What a response with a good status, or a stream that had begun, tells of an error; and its code."""
    try:
        response = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    choice = _choice(response)
    # a gateway puts the error of the server behind it into the choice
    error = _at(choice, "error") or _at(response, "error")
    if error and (choice is None or _at(choice, "error")):
        return error, _code(error) or _code(response)
    if choice is not None or not isinstance(response, dict):
        return None
    # others answer 200 with the error as the whole: {"code": 401, "msg": "invalid token"}
    said = any(isinstance(response.get(n), str) and response[n] for n in ("message", "detail", "msg"))
    if said and (response.get("object") == "error" or "choices" not in response):
        return response, _code(response)
    return None


def _code(error: Any) -> int:
    for name in ("code", "status", "status_code"):
        found = _at(error, name)
        if isinstance(found, str) and len(found) == 3 and found.isdecimal():
            found = int(found)
        if isinstance(found, int) and 400 <= found < 600:
            return found
    return 0


def _bare(name: str) -> str:
    name = name.casefold().rstrip("/").rpartition("/")[2].removesuffix(".gguf")
    return name.removesuffix(":latest")


def off_schema(reply: Reply, schema: Mapping[str, Any]) -> bool:
    """Whether a whole text is plainly not held to ``schema``: prose, or an object without its keys."""
    if reply.finish != "stop":
        return False
    try:
        found = json.loads(reply.text)
    except (ValueError, RecursionError):
        return True
    return not isinstance(found, dict) or not set(schema.get("required", ())) <= found.keys()


def follows(reply: Reply, schema: Mapping[str, Any]) -> bool:
    """Whether a text holds an object with the keys of ``schema``, whatever stands around it."""
    found = json.loads(last_object(reply.text) or "null")
    return isinstance(found, dict) and set(schema.get("required", ())) <= found.keys()


def _choice(response: Any) -> Any:
    """The first choice of a response, or None."""
    choices = _at(response, "choices")
    return choices[0] if isinstance(choices, list) and choices else None


def _at(value: Any, *keys: str) -> Any:
    """``value[key]...``, or None where the path is not there."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
        return 0
    return int(value)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(t for part in content if isinstance(t := _at(part, "text"), str))
    if isinstance(content, dict):  # the object itself, or one part of a text
        text = content.get("text")
        return text if isinstance(text, str) else json.dumps(content)
    return content if isinstance(content, str) else ""
