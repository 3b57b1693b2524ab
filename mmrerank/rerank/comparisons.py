"""Judgements of images as they are: `score`, `mark`, `prefer`, `pick`, `choose` and `grade`.

`score` (and `relevance`) asks yes or no about one image, `mark` for a digit, `prefer` which of two is better,
`pick` and `choose` which of several is best, `grade` for a number each. Most are read off the next token's
probabilities, `thinking` lets the model reason before that. Readers are as tolerant as those of `judgements`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from mmrerank.messages import Ask, Message, Part, Reply
from mmrerank.rerank.orders import last_label
from mmrerank.rerank.parse import (
    GRADED,
    answer,
    as_mapping,
    as_text,
    entry_of,
    labelled,
    lines_object,
    named,
    text_of,
)
from mmrerank.rerank.prompting import render
from mmrerank.rerank.replies import ALPHABET, TEXT, Reading, labels_for, object_of, reading, shown
from mmrerank.rerank.wording import known_labels, label_of, whole
from mmrerank.types import Assessment, Candidate, Query

# --- score -------------------------------------------------------------------------------------------

YES_NO = ("yes", "no")
"""Spelt as the prompt spells it. Checkpoints trained on another spelling say so in their cards."""
ONE_ZERO = ("1", "0")
DIGITS = tuple("0123456789")
"""Marks are single digits: 10 would be two tokens of Qwen's vocabulary and begin like 1."""


SENTENCES = 320
"""Tokens for the few sentences that may be thought before one answer."""


def thinking(ask: Ask, think: bool = True) -> Ask:
    """``ask`` with the instruction to reason first; as it is without ``think``."""
    if not think:
        return ask
    *before, last = ask.messages
    (more,) = render("think")
    spoken = replace(last, parts=(*last.parts, *_line(more)))
    if not ask.choices:
        return replace(ask, messages=(*before, spoken))
    return replace(ask, messages=(*before, spoken), think=True, max_tokens=SENTENCES)


def _line(more: Message) -> tuple[Part, ...]:
    """A further line of a question; none where the prompt is empty."""
    return (Part(text="\n"), *more.parts) if more.parts else ()


def _about_one(
    prompt: str, query: Query, candidate: Candidate, choices: tuple[str, ...], image_tokens: int
) -> Ask:
    return Ask(
        messages=render(prompt, query=query, candidates=[candidate]),
        choices=choices,
        image_tokens=image_tokens,
        kind=prompt,
        query=query,
        shown=(candidate.id,),
        labels=choices,
    )


def score(query: Query, candidate: Candidate, *, image_tokens: int = 256) -> Ask:
    """The yes/no question about one candidate, read as log-probabilities of the next token."""
    return _about_one("score", query, candidate, YES_NO, image_tokens)


def relevance(query: Query, candidate: Candidate, *, image_tokens: int = 256) -> Ask:
    """The binary task of ProRank: 1 for a relevant image, 0 for another."""
    return _about_one("relevance", query, candidate, ONE_ZERO, image_tokens)


def mark(query: Query, candidate: Candidate, *, image_tokens: int = 256) -> Ask:
    """One digit for how well an image fits, read as log-probabilities of the ten digits."""
    return _about_one("mark", query, candidate, DIGITS, image_tokens)


def read_margin(reply: Reply, pair: tuple[str, str] = YES_NO) -> float | None:
    """Log P(first of ``pair``) - log P(second), or None where the reply does not say.

    Where one side is only bounded (`Reply.bounds`), so is the margin: its sign is sure, its size the least
    that it can be, which is what orders. Two bounds say nothing.
    """
    one, other = (reply.logprobs.get(n) for n in pair)
    if set(pair) <= set(reply.bounds):
        return None
    if reply.error is not None or one is None or other is None or math.isnan(one - other):
        return None
    return one - other


def read_score(reply: Reply) -> float | None:
    """Log P(yes) - log P(no), or None where the reply does not say."""
    return read_margin(reply)


def read_alone(reply: Reply) -> float | None:
    """Log P(yes) among all tokens, as GMR's contrastive head has it; where that is not known, among the two.

    Never the margin, which is on another scale: a ranking may hold both kinds of replies.
    """
    if read_margin(reply) is None:
        return None
    return reply.logprobs["yes"] + (reply.mass or 0.0)


_BEYOND_EXP = 700.0  # of floats; only a backend that does not normalise comes near


def read_mark(reply: Reply, how: Literal["expected", "top"] = "expected") -> float | None:
    """A mark weighted by its probability, 0 to 9, or None where the reply does not say.

    ``expected``: the mean of all digits; ``top``: the likeliest digit times its probability (ERank). A digit
    that is only bounded counts as nothing: bounds are no values to add up.
    """
    found = [reply.logprobs.get(d) for d in DIGITS]
    if reply.error is not None or any(v is None or math.isnan(v) for v in found):
        return None
    values = [v for v in found if v is not None]
    shift = max(values) if abs(max(values)) > _BEYOND_EXP else 0.0
    chances = [0.0 if d in reply.bounds else math.exp(v - shift) for d, v in zip(DIGITS, values, strict=True)]
    if not any(chances):
        return None
    if how == "expected":
        return sum(n * p for n, p in enumerate(chances)) / sum(chances)
    best = max(range(len(chances)), key=lambda n: chances[n])
    return best * chances[best]


# --- prefer and pick ---------------------------------------------------------------------------------


def _by_letter(
    kind: Literal["prefer", "pick"], query: Query, candidates: Sequence[Candidate], image_tokens: int
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
    """Log-probability by candidate id of the reply to `prefer` or `pick`; empty where it does not say.

    Letters that are only bounded (`Reply.bounds`) share the bound, below all others: they are last, and among
    themselves in the order that they had.
    """
    values = [reply.logprobs.get(n) for n in ask.labels]
    if reply.error is not None or any(v is None or math.isnan(v) for v in values):
        return {}
    return {i: v for i, v in zip(ask.shown, values, strict=True) if v is not None}


def written(ask: Ask) -> Ask:
    """`prefer` or `pick` for backends without log-probabilities: the letter is written, ``{"best": "B"}``."""
    schema = object_of({"best": {"type": "string", "enum": list(ask.labels)}})
    *before, last = ask.messages
    (more,) = render("written", schema=schema)
    messages = (*before, replace(last, parts=(*last.parts, *_line(more))))
    return replace(ask, messages=messages, choices=(), schema=schema, max_tokens=40)


def choose(query: Query, candidates: Sequence[Candidate], *, image_tokens: int = 256) -> Ask:
    """Which image fits best, written after a comparison: ``{"thought", "best": letter}`` (Rank-R1)."""
    labels = labels_for(len(candidates))
    schema = object_of({"thought": TEXT, "best": {"type": "string", "enum": list(labels)}})
    return Ask(
        messages=render("choose", query=query, candidates=shown(candidates), schema=schema),
        schema=schema,
        max_tokens=SENTENCES + 40,
        image_tokens=image_tokens,
        kind="choose",
        query=query,
        shown=tuple(c.id for c in candidates),
        labels=labels,
    )


_BEST = named(
    best=("best_image", "answer", "choice", "winner", "label", "image", "selected", "selection", "option",
          "letter", "preferred", "better", "pick"),
    thought=("reason", "reasoning", "explanation", "thoughts"),
)  # fmt: skip


def read_best(reply: Reply, ask: Ask) -> tuple[str | None, Reading]:
    """The id of the image a reply to `written` or `choose` names, or None; the reading has the thought."""
    body, repaired = answer(reply, _BEST, ("best",))
    value = body.get("best")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = next((v for k, v in value.items() if _BEST(k) == "best"), None)
    name = label_of(value, known_labels(ask.labels))
    if not body and reply.error is None:
        name = last_label(text_of(reply), ask.labels)
    if name is None:
        return None, reading("failed")
    id_ = dict(zip(ask.labels, ask.shown, strict=True))[name]
    clean = not repaired and body.get("best") in ask.labels
    return id_, reading("ok" if clean else "repaired", reason=as_text(body.get("thought")))


# --- grade -------------------------------------------------------------------------------------------

TOP_MARK = 10


def grade(query: Query, group: Sequence[Candidate], *, image_tokens: int = 256) -> Ask:
    """A number for every image of a group.

    The reply: ``{"A": {"note", "grade": 0-10}, ...}``, one required key per candidate.
    """
    labels = labels_for(len(group))
    mark = {"type": "integer", "enum": list(range(TOP_MARK + 1))}
    schema = object_of(dict.fromkeys(labels, object_of({"note": TEXT, "grade": mark})))
    return Ask(
        messages=render("grade", query=query, candidates=shown(group), schema=schema),
        schema=schema,
        max_tokens=120 * len(group),
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
    body, repaired = answer(reply, labelled(ask.labels), rows=True)
    if len(ask.labels) == 1 and ask.labels[0] not in body:
        body, repaired = {ask.labels[0]: answer(reply, GRADED, ("grade",))[0]}, True
    if not any(n in body for n in ask.labels):
        body = lines_object(reply, labelled(ask.labels))
    marks: dict[str, int] = {}
    assessments: dict[str, Assessment] = {}
    for label, id_ in zip(ask.labels, ask.shown, strict=True):
        entry, mended = entry_of(body.get(label), GRADED)
        told = entry.get("grade") if as_mapping(body.get(label)) else body.get(label)
        found = whole(told, TOP_MARK)
        repaired = repaired or mended or not isinstance(told, int)
        if found is None:
            repaired = True
            continue
        marks[id_] = found
        assessments[id_] = Assessment(reason=f"{found} of {TOP_MARK}: {as_text(entry.get('note'))}")
    if not marks:
        return {}, reading("failed")
    return marks, reading("repaired" if repaired else "ok", assessments=assessments)
