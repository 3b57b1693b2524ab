"""Asks and replies as the OpenAI chat-completions format has them: pure functions, no network.

`Dialect` is what one server understands of that format; `body` writes a request in a dialect and `reading`
turns a response into a `Reply`, trusting nothing in it.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmrerank.chat._text import without_thinking
from mmrerank.errors import ReplyError
from mmrerank.images import data_uri, decode, fit
from mmrerank.messages import Ask, Message, Reply
from mmrerank.types import Image, Usage

TOP = 20
"""Alternatives asked for with a log-probability question: the most that OpenAI and vLLM give by default."""
LOSSLESS = 256 * 256
"""Pixels up to which an image is sent as PNG; larger ones go as JPEG of quality 90."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What a server takes. ``schema`` as response_format; ``told`` if it must stand in the prompt."""

    schema: bool = True
    told: bool = False
    limit: str = "max_tokens"
    temperature: bool = True

    def plainer(self, complaint: str, request: Mapping[str, Any]) -> Dialect | None:
        """What to try after a server refused ``request`` with ``complaint``; None when nothing is left."""
        if "max_completion_tokens" in complaint and self.limit == "max_tokens":
            return replace(self, limit="max_completion_tokens")
        if "temperature" in complaint and self.temperature:
            return replace(self, temperature=False)
        if "response_format" in request:
            return replace(self, schema=False, told=True)
        return None


def body(ask: Ask, model: str, dialect: Dialect) -> dict[str, Any]:
    """The request for ``ask``. Raises `ImageError` or `OSError` for an image that cannot be read."""
    messages = [{"role": m.role, "content": _content(m, ask.image_tokens)} for m in ask.messages]
    request: dict[str, Any] = {"model": model, "messages": messages}
    request[dialect.limit] = 1 if ask.choices else ask.max_tokens
    if dialect.temperature:
        request["temperature"] = ask.temperature
    if ask.choices:
        return {**request, "logprobs": True, "top_logprobs": TOP}
    if ask.schema is not None and dialect.told:
        shape = json.dumps(ask.schema, default=list)
        text = (
            f"Answer with one JSON object that follows this JSON schema, and nothing else: {shape}"
        )
        messages.append({"role": "user", "content": [{"type": "text", "text": text}]})
    if ask.schema is not None and dialect.schema:
        form = {"name": "reply", "strict": True, "schema": ask.schema}
        request["response_format"] = {"type": "json_schema", "json_schema": form}
    return request


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
    """The reply that a response's bytes hold. Raises `ReplyError` when they hold none."""
    try:
        response = json.loads(payload)
    except ValueError:
        start = payload[:60].decode("utf-8", "replace").strip()
        raise ReplyError(f"the server's response is not JSON; it begins {start!r}") from None
    choices = _at(response, "choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = _at(choice, "message")
    if not isinstance(message, dict):
        raise ReplyError("the server's response holds no choices")
    usage = Usage(
        input_tokens=_count(_at(response, "usage", "prompt_tokens")),
        output_tokens=_count(_at(response, "usage", "completion_tokens")),
    )
    if ask.choices:
        return Reply(logprobs=_logprobs(ask.choices, choice), usage=usage)
    cut = _at(choice, "finish_reason") == "length"
    text = without_thinking(_text(message.get("content")))
    if not text.strip():
        thought = message.get("reasoning_content") or message.get("reasoning")
        why = "only reasoning" if thought else "no text"
        hint = f"; raise max_tokens above {ask.max_tokens}" if cut else ""
        raise ReplyError(f"the model gave {why}{hint}")
    return Reply(text=text, usage=usage, finish="length" if cut else "stop")


def _logprobs(choices: Sequence[str], choice: Any) -> dict[str, float]:
    """Log-probabilities normalised over ``choices``; a choice not listed gets the smallest value listed."""
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
    return {c: v - total for c, v in zip(choices, values, strict=True)}


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
