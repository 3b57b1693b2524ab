"""Judgements without a chain of thought: `score`, `prefer`, `pick` and `grade`, asked of images as they are.

`score` asks yes or no about one image, `prefer` which of two is better, `pick` which of several is best,
`grade` for a number each. Readers are as tolerant as those of `judgements`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from mmrerank.messages import Ask, Reply
from mmrerank.rerank.parse import as_mapping, as_text, json_object
from mmrerank.rerank.prompting import render
from mmrerank.rerank.replies import (
    ALPHABET,
    TEXT,
    Reading,
    labels_for,
    object_of,
    reading,
    shown,
    whole,
)
from mmrerank.types import Assessment, Candidate, Query

# --- score -------------------------------------------------------------------------------------------


def score(query: Query, candidate: Candidate, *, image_tokens: int = 256) -> Ask:
    """The yes/no question about one candidate, read as log-probabilities of the next token."""
    return Ask(
        messages=render("score", query=query, candidates=[candidate]),
        choices=("yes", "no"),
        image_tokens=image_tokens,
        kind="score",
        query=query,
        shown=(candidate.id,),
        labels=("yes", "no"),
    )


def read_score(reply: Reply) -> float | None:
    """Log P(yes) - log P(no), or None where the reply does not say."""
    yes, no = reply.logprobs.get("yes"), reply.logprobs.get("no")
    if reply.error is not None or yes is None or no is None or math.isnan(yes - no):
        return None
    return yes - no


# --- prefer and pick ---------------------------------------------------------------------------------


def _by_letter(
    kind: Literal["prefer", "pick"],
    query: Query,
    candidates: Sequence[Candidate],
    image_tokens: int,
) -> Ask:
    labels = labels_for(len(candidates))
    return Ask(
        messages=render(kind, query=query, candidates=shown(candidates)),
        choices=labels,
        image_tokens=image_tokens,
        kind=kind,
        query=query,
        shown=tuple(c.id for c in candidates),
        labels=labels,
    )


def prefer(query: Query, one: Candidate, other: Candidate, *, image_tokens: int = 256) -> Ask:
    """Which of two images fits better, read as log-probabilities of their letters."""
    return _by_letter("prefer", query, (one, other), image_tokens)


def pick(query: Query, candidates: Sequence[Candidate], *, image_tokens: int = 256) -> Ask:
    """Which of 2 to 26 images fits best, read as log-probabilities of their letters.

    Raises `ValueError` for more: a label would no longer be one token.
    """
    if not 2 <= len(candidates) <= len(ALPHABET):
        raise ValueError(f"pick takes 2 to {len(ALPHABET)} images, not {len(candidates)}")
    return _by_letter("pick", query, candidates, image_tokens)


def read_letters(reply: Reply, ask: Ask) -> Mapping[str, float]:
    """Log-probability by candidate id of the reply to `prefer` or `pick`; empty where it does not say."""
    values = [reply.logprobs.get(n) for n in ask.labels]
    if reply.error is not None or any(v is None or math.isnan(v) for v in values):
        return {}
    return {i: v for i, v in zip(ask.shown, values, strict=True) if v is not None}


# --- grade -------------------------------------------------------------------------------------------

TOP_MARK = 10


def grade(query: Query, group: Sequence[Candidate], *, image_tokens: int = 256) -> Ask:
    """A number for every image of a group.

    The reply: ``{"A": {"note", "grade": 0-10}, ...}``, one required key per candidate.
    """
    labels = labels_for(len(group))
    mark = {"type": "integer", "enum": list(range(TOP_MARK + 1))}
    return Ask(
        messages=render("grade", query=query, candidates=shown(group)),
        schema=object_of(dict.fromkeys(labels, object_of({"note": TEXT, "grade": mark}))),
        max_tokens=80 * len(group),
        image_tokens=image_tokens,
        kind="grade",
        query=query,
        shown=tuple(c.id for c in group),
        labels=labels,
    )


def read_grade(reply: Reply, ask: Ask) -> tuple[Mapping[str, int], Reading]:
    """Grades by candidate id out of the reply to `grade`; a candidate without a readable one has none.

    The reading's assessments hold the notes.
    """
    body, repaired = json_object(reply)
    marks: dict[str, int] = {}
    told: dict[str, Assessment] = {}
    for label, id_ in zip(ask.labels, ask.shown, strict=True):
        entry = as_mapping(body.get(label))
        found = whole(entry.get("grade", body.get(label)), TOP_MARK)
        if found is None:
            repaired = True
            continue
        marks[id_] = found
        told[id_] = Assessment(reason=f"{found} of {TOP_MARK}: {as_text(entry.get('note'))}")
    if not marks:
        return {}, reading("failed")
    return marks, reading("repaired" if repaired else "ok", assessments=told)
