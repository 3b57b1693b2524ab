"""Asks as the OpenAI chat-completions format has them: pure functions, no network.

`body` writes a request in a server's `Dialect`. Roles alternate: neighbours of one role are one turn.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import PIL.Image

from mmrerank.chat.labels import spelt
from mmrerank.chat.openai.dialect import Dialect
from mmrerank.errors import UsageError
from mmrerank.images import data_uri, decode
from mmrerank.images.budget import MOST_RATIO, viewable
from mmrerank.messages import Ask, Message
from mmrerank.reply_shape import shows_shape
from mmrerank.types import Image

LOSSLESS = 256 * 256
"""Pixels up to which an image is sent as PNG; larger ones go as JPEG of quality 90."""
PLAIN = Dialect()
"""What a server is taken to understand until it says otherwise."""
_COARSER = (75, 60, 45)
"""JPEG qualities for a file that is too large; then the picture shrinks."""
_Content = str | list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Request:
    """The fields of a request, and what a person should know of how the question was changed for it."""

    fields: dict[str, Any]
    notes: tuple[str, ...] = ()


def body(
    ask: Ask,
    model: str,
    dialect: Dialect,
    *,
    thinking: int = 0,
    wanted: Dialect | None = None,
    ids: Iterable[int] = (),
) -> Request:
    """The request for ``ask``, with room for so many tokens of ``thinking`` before a text.

    ``ids`` are the tokens that spell its choices, where the server tells of tokens by their ids. What
    ``dialect`` leaves out of ``wanted`` stands in the notes. Raises `ImageError` or `OSError` for an image
    that cannot be read.
    """
    notes: dict[str, None] = {}
    words = in_words(ask) if dialect.schema_in_prompt else ""
    messages = conversation(ask, dialect, more="" if ask.choices else words, notes=notes)
    request: dict[str, Any] = {"model": model, "messages": messages, **dialect.extra}
    room = 1 if ask.choices else ask.max_tokens + thinking
    request[dialect.limit] = min(room, dialect.most_tokens or room)
    # the first token of a thinking model opens its thoughts, which no choice is
    if ask.choices or not (thinking or ask.think):
        request.update(dialect.quiet)
    if dialect.temperature:
        request["temperature"] = ask.temperature
    if dialect.stream and not ask.choices:
        request["stream"] = True
        if dialect.usage:
            request["stream_options"] = {"include_usage": True}
    if ask.choices:
        request |= {"logprobs": True, "top_logprobs": dialect.top}
        if asked := sorted(ids):
            request |= {"logprob_token_ids": asked, "return_tokens_as_token_ids": True}
        elif dialect.chooses:
            spellings = [s for own in spelt(ask.choices, exact=ask.exact).values() for s in own]
            request["structured_outputs"] = {"choice": spellings}
    elif ask.schema is not None and dialect.schema == "object":
        request["response_format"] = {"type": "json_object"}
    elif ask.schema is not None and dialect.schema != "none":
        form = {"name": "reply", "strict": dialect.schema == "strict", "schema": ask.schema}
        request["response_format"] = {"type": "json_schema", "json_schema": form}
    told = () if wanted is None else dialect.told(wanted, ask)
    return Request(fields=request, notes=(*notes, *told))


def in_words(ask: Ask) -> str:
    """The reply's form as a prompt tells it to a server that does not hold a model to it; "" for free text.

    The schema itself, or a reminder where the question shows its shape already.
    """
    if ask.schema is None:
        return ""
    if shows_shape(ask):
        return "Answer with one JSON object of the shape shown above, and nothing else."
    schema = json.dumps(ask.schema, default=list)
    return f"Answer with one JSON object that follows this JSON schema, and nothing else: {schema}"


def conversation(
    ask: Ask, dialect: Dialect = PLAIN, *, more: str = "", notes: dict[str, None] | None = None
) -> list[dict[str, Any]]:
    """The turns of ``ask`` as the protocol has them, ``more`` at the end of the last one.

    ``notes`` takes what should be known of how pictures were changed. Raises `ImageError` or `OSError`.
    """
    turns: list[tuple[str, _Content]] = []
    known = {} if notes is None else notes
    for message in ask.messages:
        folded = message.role == "system" and not dialect.system
        content = _content(message, ask.image_tokens, dialect, known)
        turns.append(("user" if folded else message.role, content))
    if more:
        turns.append(("user", more))
    merged: list[tuple[str, _Content]] = []
    for role, content in turns:
        if merged and merged[-1][0] == role:
            merged[-1] = (role, _joined(merged[-1][1], content))
        else:
            merged.append((role, content))
    return [{"role": role, "content": content} for role, content in merged]


def _joined(one: _Content, other: _Content) -> _Content:
    if isinstance(one, str) and isinstance(other, str):
        return f"{one}\n\n{other}"
    first = [{"type": "text", "text": f"{one}\n\n"}] if isinstance(one, str) else one
    # a template writes the parts of a turn one after the other, with nothing between
    last = [{"type": "text", "text": f"\n\n{other}"}] if isinstance(other, str) else other
    return [*first, *last]


def _content(message: Message, image_tokens: int, dialect: Dialect, notes: dict[str, None]) -> _Content:
    if all(p.image is None for p in message.parts):
        return "".join(p.text or "" for p in message.parts)
    return [
        {"type": "text", "text": p.text}
        if p.image is None
        else {"type": "image_url", "image_url": {"url": image_url(p.image, image_tokens, dialect, notes)}}
        for p in message.parts
    ]


def image_url(
    image: Image, image_tokens: int, dialect: Dialect = PLAIN, notes: dict[str, None] | None = None
) -> str:
    """``image`` upright, within the token budget and the server's limits and re-encoded, as a data URI."""
    whole = decode(image)
    picture = viewable(
        whole, max_tokens=image_tokens, pixels_per_token=dialect.pixels_per_token,
        least_side=dialect.least_side, most_side=dialect.most_side,
    )  # fmt: skip
    if notes is not None and (note := _resized(whole.size, picture.size, dialect)):
        notes[note] = None
    mime = "png" if picture.width * picture.height <= LOSSLESS else "jpeg"
    uri = data_uri(_file(picture, mime, 90), f"image/{mime}")
    if not dialect.most_bytes or len(uri) <= dialect.most_bytes:
        return uri
    for quality in _COARSER:
        uri = data_uri(_file(picture, "jpeg", quality), "image/jpeg")
        if len(uri) <= dialect.most_bytes:
            break
    while len(uri) > dialect.most_bytes and min(picture.size) > dialect.least_side:
        smaller = tuple(max(dialect.least_side, side * 3 // 4) for side in picture.size)
        picture = picture.resize((smaller[0], smaller[1]), PIL.Image.Resampling.LANCZOS)
        uri = data_uri(_file(picture, "jpeg", _COARSER[-1]), "image/jpeg")
    if notes is not None:
        notes[
            f"pictures were sent coarser: the server takes at most {dialect.most_bytes:,} bytes of each"
        ] = None
    return uri


def _file(picture: PIL.Image.Image, mime: str, quality: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, mime, **({"quality": quality} if mime == "jpeg" else {}))
    return file.getvalue()


def _resized(before: tuple[int, int], after: tuple[int, int], dialect: Dialect) -> str:
    """What to tell of a picture that grew, lost its shape, or shrank for the server's sake."""
    if min(before) * MOST_RATIO < max(before):
        return f"pictures longer than {MOST_RATIO} times their width were squeezed: models take none"
    if min(before) < dialect.least_side:
        return f"pictures with a side below {dialect.least_side} pixels were enlarged to that"
    if dialect.most_side and max(before) > dialect.most_side == max(after):
        return f"pictures were shrunk: the server takes sides of at most {dialect.most_side} pixels"
    return ""


def fields(extra: str) -> dict[str, Any]:
    """More fields for every request, out of JSON text. Raises `UsageError`."""
    try:
        found = json.loads(extra or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(f'extra is a JSON object of fields, such as {{"top_k": 20}}, not {extra!r}')
    return found


def images_of(messages: Sequence[Message]) -> int:
    """How many images stand in ``messages``."""
    return sum(p.image is not None for m in messages for p in m.parts)
