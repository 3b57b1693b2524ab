"""Asks and replies as the OpenAI chat-completions format has them: pure functions, no network.

`Dialect` is what one server understands of that format; `body` writes a request in a dialect and `reading`
turns a response into a `Reply`, trusting nothing in it.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmrerank.chat.text import without_thinking
from mmrerank.errors import NoRoomError, ReplyError, UsageError
from mmrerank.images import data_uri, decode, fit
from mmrerank.messages import Ask, Message, Reply
from mmrerank.types import Image, Usage

TOP = 20
"""Alternatives asked for with a log-probability question: the most that OpenAI and vLLM give by default."""
FEW = 5
"""What is asked for where that is too many."""
CALMER = {"none": "minimal", "minimal": "low"}
"""The next reasoning_effort where a model knows no lower one."""
LOSSLESS = 256 * 256
"""Pixels up to which an image is sent as PNG; larger ones go as JPEG of quality 90."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What a server takes. ``schema`` as response_format; ``schema_in_prompt`` if it must stand there.

    ``extra`` fields go into every request, ``quiet`` ones (which switch thinking off) where no thinking is
    wanted. ``top`` is how many log-probabilities are asked for; ``usage`` asks a stream for its tokens.
    """

    schema: bool = True
    schema_in_prompt: bool = False
    limit: str = "max_tokens"
    temperature: bool = True
    top: int = TOP
    stream: bool = False
    usage: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    quiet: Mapping[str, Any] = field(default_factory=dict)
    chooses: bool = False
    """Whether choices are sent as vLLM's ``structured_outputs``."""

    def plainer(self, complaint: str, request: Mapping[str, Any]) -> Dialect | None:
        """What to try after a server refused ``request`` with ``complaint``; None when nothing is left."""
        if "max_completion_tokens" in complaint and self.limit == "max_tokens":
            return replace(self, limit="max_completion_tokens")
        if "temperature" in complaint and self.temperature:
            return replace(self, temperature=False)
        if "top_logprobs" in complaint and self.top > FEW:
            return replace(self, top=FEW)
        if self.stream and "stream_options" in complaint and self.usage:
            return replace(self, usage=False)
        effort = CALMER.get(self.quiet.get("reasoning_effort", ""))
        if effort and "reasoning_effort" in complaint and "value" in complaint.casefold():
            return replace(self, quiet={**self.quiet, "reasoning_effort": effort})
        # what no standard knows goes first, then what the standard knows and some servers do not
        if "structured_outputs" in request:
            return replace(self, chooses=False)
        if self.quiet and request.keys() & self.quiet.keys():
            return replace(self, quiet={})
        if self.stream and "stream" in complaint:
            return replace(self, stream=False)
        if "response_format" in request:
            return replace(self, schema=False, schema_in_prompt=True)
        return None


def body(ask: Ask, model: str, dialect: Dialect, *, thinking: int = 0) -> dict[str, Any]:
    """The request for ``ask``, with room for so many tokens of ``thinking`` before a text.

    Raises `ImageError` or `OSError` for an image that cannot be read.
    """
    messages = conversation(ask)
    request: dict[str, Any] = {"model": model, "messages": messages, **dialect.extra}
    request[dialect.limit] = 1 if ask.choices else ask.max_tokens + thinking
    # the first token of a thinking model opens its thoughts, which no choice is
    if ask.choices or not thinking:
        request.update(dialect.quiet)
    if dialect.temperature:
        request["temperature"] = ask.temperature
    if dialect.stream and not ask.choices:
        request["stream"] = True
        if dialect.usage:
            request["stream_options"] = {"include_usage": True}
    if ask.choices:
        if dialect.chooses:
            request["structured_outputs"] = {"choice": list(ask.choices)}
        return {**request, "logprobs": True, "top_logprobs": dialect.top}
    if ask.schema is not None and dialect.schema_in_prompt:
        text = in_words(ask.schema)
        messages.append({"role": "user", "content": [{"type": "text", "text": text}]})
    if ask.schema is not None and dialect.schema:
        form = {"name": "reply", "strict": True, "schema": ask.schema}
        request["response_format"] = {"type": "json_schema", "json_schema": form}
    return request


def in_words(schema: Mapping[str, Any]) -> str:
    """``schema`` as a prompt tells it to a server that does not hold a model to it."""
    shape = json.dumps(schema, default=list)
    return f"Answer with one JSON object that follows this JSON schema, and nothing else: {shape}"


def conversation(ask: Ask) -> list[dict[str, Any]]:
    """The messages of ``ask`` as the protocol has them. Raises `ImageError` or `OSError`."""
    return [{"role": m.role, "content": _content(m, ask.image_tokens)} for m in ask.messages]


def _content(message: Message, image_tokens: int) -> str | list[dict[str, Any]]:
    if all(p.image is None for p in message.parts):
        return "".join(p.text or "" for p in message.parts)
    return [
        {"type": "text", "text": p.text}
        if p.image is None
        else {"type": "image_url", "image_url": {"url": image_url(p.image, image_tokens)}}
        for p in message.parts
    ]


def image_url(image: Image, image_tokens: int) -> str:
    """``image`` upright, within the token budget and re-encoded, as a data URI."""
    picture = fit(decode(image), max_tokens=image_tokens)
    mime = "png" if picture.width * picture.height <= LOSSLESS else "jpeg"
    file = io.BytesIO()
    picture.save(file, mime, **({"quality": 90} if mime == "jpeg" else {}))
    return data_uri(file.getvalue(), f"image/{mime}")


def reading(ask: Ask, payload: bytes) -> Reply:
    """The reply that a response's bytes hold; one with a `ReplyError` and its cost when they hold none."""
    try:
        response = json.loads(payload)
    except (ValueError, RecursionError):
        start = payload[:60].decode("utf-8", "replace").strip()
        return _useless(f"the server's response is not JSON; it begins {start!r}")
    choices = _at(response, "choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = _at(choice, "message")
    usage = Usage(
        input_tokens=_count(_at(response, "usage", "prompt_tokens")),
        output_tokens=_count(_at(response, "usage", "completion_tokens")),
    )
    if not isinstance(message, dict):
        return _useless("the server's response holds no choices", usage)
    if ask.choices:
        try:
            logprobs, mass = _logprobs(ask.choices, choice)
            return Reply(logprobs=logprobs, mass=mass, usage=usage)
        except ReplyError as error:
            return _useless(str(error), usage)
    cut = _at(choice, "finish_reason") == "length"
    text = without_thinking(_text(message.get("content")))
    if not text.strip():
        thought = _thoughts(response)
        why = "only reasoning" if thought else "no text"
        room = "give it room to think with --chat-option thinking=4096" if thought else "raise it"
        hint = f" within max_tokens ({ask.max_tokens}); {room}" if cut else ""
        return _useless(f"the model gave {why}{hint}", usage, NoRoomError if cut else ReplyError)
    return Reply(text=text, usage=usage, finish="length" if cut else "stop")


def _useless(why: str, usage: Usage | None = None, kind: type[ReplyError] = ReplyError) -> Reply:
    return Reply(error=kind(why), finish="error", usage=usage or Usage())


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
    choices = _at(response, "choices")
    message = _at(choices[0] if isinstance(choices, list) and choices else None, "message")
    cached = _count(_at(response, "usage", "prompt_tokens_details", "cached_tokens"))
    inline = "<think>" in _text(_at(message, "content"))
    return ServerNotes(cached_tokens=cached, thought=inline or _thoughts(response))


def _thoughts(response: Any) -> bool:
    """Whether a response holds thoughts apart from its text, or was charged for some."""
    choices = _at(response, "choices")
    message = _at(choices[0] if isinstance(choices, list) and choices else None, "message")
    counted = _count(_at(response, "usage", "completion_tokens_details", "reasoning_tokens"))
    return bool(_at(message, "reasoning_content") or _at(message, "reasoning") or counted)


def trouble(payload: bytes) -> tuple[Any, int] | None:
    """What a response with a good status, or a stream that had begun, tells of an error; and its code."""
    try:
        response = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    error = _at(response, "error")
    if not error or _at(response, "choices"):
        return None
    return error, _count(_at(error, "code"))


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


def _logprobs(choices: Sequence[str], choice: Any) -> tuple[dict[str, float], float | None]:
    """Log-probabilities normalised over ``choices``, and that of all together where all are listed.

    A choice that is not listed gets the smallest value listed.
    """
    content = _at(choice, "logprobs", "content")
    listed = _at(content[0], "top_logprobs") if isinstance(content, list) and content else None
    found: dict[str, float] = {}
    for entry in listed if isinstance(listed, list) else []:
        token, value = _at(entry, "token"), _at(entry, "logprob")
        if isinstance(token, str) and isinstance(value, int | float) and not math.isnan(value):
            found.setdefault(token, max(float(value), -1e4))  # some servers write -inf as -9999
    if not found:
        raise ReplyError("the server returned no log-probabilities")
    if not found.keys() & set(choices):
        raise ReplyError(
            f"none of the choices {', '.join(choices)} is among the {len(found)} likeliest tokens"
        )
    floor = min(found.values())
    values = [found.get(c, floor) for c in choices]
    top = max(values)
    total = top + math.log(sum(math.exp(v - top) for v in values))
    complete = all(c in found for c in choices)
    return {c: v - total for c, v in zip(choices, values, strict=True)}, total if complete else None


def _at(value: Any, *keys: str) -> Any:
    """``value[key]...``, or None where the path is not there."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(t for part in content if isinstance(t := _at(part, "text"), str))
    return content if isinstance(content, str) else ""


def fields(extra: str) -> dict[str, Any]:
    """More fields for every request, out of JSON text. Raises `UsageError`."""
    try:
        found = json.loads(extra or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(f'extra is a JSON object of fields, such as {{"top_k": 20}}, not {extra!r}')
    return found
