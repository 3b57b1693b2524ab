"""Requests to servers that rerank, and what their answers say: pure functions, no network.

Four forms are known. ``content`` (vLLM): documents are lists of parts, as in chats; ``jina``: objects with an
image or a text; ``plain`` (Cohere, and any other for texts): strings; ``tei`` (text-embeddings-inference):
``texts``. Answers have their scores under ``results``, under ``data``, or are a list.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmrerank.errors import ChatError, ReplyError

Form = Literal["content", "jina", "plain", "tei", "score"]
IMAGES: tuple[Form, ...] = ("content", "jina", "score")
"""Forms that can show an image."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """A query or a document: images as data URLs, and words."""

    images: tuple[str, ...] = ()
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Way:
    """Where a server is asked, and in which form."""

    path: str
    form: Form

    @property
    def shows(self) -> bool:
        """Whether this form can hold an image."""
        return self.form in IMAGES

    def __str__(self) -> str:
        return f"{self.path} in the form {self.form!r}"


WAYS = (
    Way(path="/v1/rerank", form="content"),
    Way(path="/v1/rerank", form="jina"),
    Way(path="/v1/rerank", form="plain"),
    Way(path="/v2/rerank", form="plain"),
    Way(path="/rerank", form="content"),
    Way(path="/rerank", form="jina"),
    Way(path="/rerank", form="tei"),
    Way(path="/rerank", form="plain"),
    Way(path="/v1/score", form="score"),
    Way(path="/score", form="score"),
)
"""What is tried, in this order, until something answers."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """The fields of a request, and what was left out of it, in words for a person."""

    fields: dict[str, Any]
    notes: tuple[str, ...] = ()


def pictured_in(query: Side, documents: Sequence[Side]) -> bool:
    """Whether a question shows an image."""
    return bool(query.images) or any(d.images for d in documents)


def body(way: Way, model: str, query: Side, documents: Sequence[Side], instruction: str) -> Sent:
    """The request. Raises `ChatError` for a question that this form cannot hold."""
    notes: dict[str, None] = {}
    if way.form == "jina":
        asked: Any = _single(query, notes, "the query")
        rows: Any = [_single(d, notes, "candidates") for d in documents]
    else:
        asked, rows = _parts(query), [_parts(d) for d in documents]
    fields: dict[str, Any] = {"model": model}
    if way.form == "tei":
        fields |= {"query": asked, "texts": rows, "raw_scores": False, "return_text": False}
    elif way.form == "score":
        fields |= {"queries": asked, "documents": rows}
    else:
        fields |= {"query": asked, "documents": rows, "top_n": len(rows)}
        if way.form == "jina":
            fields["return_documents"] = False
    if instruction and way.form in ("content", "score"):
        fields["instruction"] = instruction
    elif instruction:
        notes["the server takes no instruction: it was left out"] = None
    return Sent(fields=fields, notes=tuple(notes))


def _parts(side: Side) -> Any:
    """Words alone as a string; with an image, the parts of a chat, images first."""
    if not side.images:
        return side.text
    shown: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": u}} for u in side.images]
    return {"content": [*shown, *([{"type": "text", "text": side.text}] if side.text else [])]}


def _single(side: Side, notes: dict[str, None], what: str) -> Any:
    if not side.images:
        return side.text if what == "the query" else {"text": side.text}
    if len(side.images) > 1:
        raise ChatError(
            "this server takes one image as the query, and no more", kind="too_many_images", limit=1
        )
    if side.text:
        notes[f"the server takes an image or words: the words of {what} beside an image were left out"] = None
    return {"image": side.images[0]}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Scores by place, NaN where the server gave none; the tokens it counted; what was odd."""

    scores: tuple[float, ...]
    tokens: int = 0
    notes: tuple[str, ...] = ()


def answer(payload: str, count: int) -> Answer:
    """The scores of ``count`` documents out of a response's text. Raises `ReplyError` where it holds none."""
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        raise ReplyError(f"the answer is no JSON; it begins {' '.join(payload[:60].split())!r}") from None
    rows = found if isinstance(found, list) else None
    if isinstance(found, dict):
        rows = next((found[n] for n in ("results", "data", "scores") if isinstance(found.get(n), list)), None)
    if rows is None:
        raise ReplyError(f"the answer holds no scores; it begins {' '.join(payload[:80].split())!r}")
    scores, notes = _by_place(rows, count)
    if all(map(math.isnan, scores)):
        raise ReplyError(f"the answer holds no score that can be read ({'; '.join(notes) or 'none at all'})")
    return Answer(scores=scores, tokens=_tokens(found), notes=notes)


def _by_place(rows: Sequence[Any], count: int) -> tuple[tuple[float, ...], tuple[str, ...]]:
    scores: dict[int, float] = {}
    odd: dict[str, None] = {}
    twice: set[int] = set()
    named = {r.get("index") for r in rows if isinstance(r, dict) and type(r.get("index")) is int}
    if count in named and 0 not in named:
        raise ReplyError("the answer numbers the documents from 1, so that no score can be told to be whose")
    bare = len(rows) == count and not any(isinstance(r, dict) and "index" in r for r in rows)
    for n, row in enumerate(rows):
        place = n if bare else row.get("index") if isinstance(row, dict) else None
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < count:
            odd["scores of documents that were not sent were left out"] = None
            continue
        value = _score(row)
        if place in scores and scores[place] != value:
            twice.add(place)
        scores[place] = value
    if twice:
        odd["documents with two different scores count as not scored"] = None
    found = tuple(math.nan if n in twice else scores.get(n, math.nan) for n in range(count))
    if any(map(math.isnan, found)):
        odd["the server gave some documents no score"] = None
    return found, tuple(odd)


def _score(row: Any) -> float:
    value = row
    if isinstance(row, dict):
        value = next((row[n] for n in ("relevance_score", "score", "logit") if n in row), None)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


def _tokens(found: Any) -> int:
    usage = found.get("usage") if isinstance(found, dict) else None
    for name in ("total_tokens", "prompt_tokens"):
        value = usage.get(name) if isinstance(usage, dict) else None
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12:
            return value
    return 0
