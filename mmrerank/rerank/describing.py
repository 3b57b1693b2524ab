"""A query in other words: the caption of the image that is wanted, for an embedder to search with."""

from __future__ import annotations

from mmrerank.messages import Ask, Reply
from mmrerank.rerank.parse import answer, as_text, named, text_of
from mmrerank.rerank.prompting import render
from mmrerank.rerank.replies import TEXT, object_of
from mmrerank.types import Query

_LONGEST = 400  # characters: encoders read some 77 tokens
_DESCRIPTION = named(description=("caption", "target", "text", "answer"), thought=("reason", "reasoning"))


def described(query: Query, *, image_tokens: int = 256) -> Ask:
    """Asks for a caption of what ``query`` looks for: ``{"thought": ..., "description": ...}``."""
    schema = object_of({"thought": TEXT, "description": TEXT})
    return Ask(
        messages=render("describe", query=query, schema=schema),
        schema=schema,
        max_tokens=400,
        image_tokens=image_tokens,
        kind="describe",
        query=query,
    )


def read_description(reply: Reply) -> str:
    """The caption out of the reply to `described`, in one line; empty where there is none."""
    body, _ = answer(reply, _DESCRIPTION, ("description",))
    text = as_text(body.get("description"))
    if not text and "{" not in (words := text_of(reply)):
        text = words  # a model that writes the caption and nothing else
    return " ".join(text.strip().strip('"').split())[:_LONGEST]
