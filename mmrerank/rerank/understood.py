"""Whether a reply answers its question, by the very reader that the methods use. Pure.

What no reader understands gave no information, whatever its status: it is not kept as an answer, and it is
reported with its beginning.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from mmrerank.errors import DATA_ERRORS
from mmrerank.messages import Ask, Reply, Said, Scoring
from mmrerank.rerank import comparisons, judgements
from mmrerank.rerank.describing import read_description
from mmrerank.rerank.states import read_attention, read_tokens, read_vector

SHOWN = 80
"""Characters of an unreadable reply that are shown."""

_READERS: dict[str, Callable[[Reply, Ask], bool]] = {
    "deconstruct": lambda reply, _: judgements.read_deconstruct(reply).status != "failed",
    "evaluate": lambda reply, ask: judgements.read_evaluate(reply, ask).status != "failed",
    "order": lambda reply, ask: judgements.read_order(reply, ask).status != "failed",
    "describe": lambda reply, _: bool(read_description(reply)),
    "single": lambda reply, ask: judgements.read_single(reply, ask).status != "failed",
    "grade": lambda reply, ask: bool(comparisons.read_grade(reply, ask)[0]),
    "choose": lambda reply, ask: comparisons.read_best(reply, ask)[0] is not None,
    "prefer": lambda reply, ask: comparisons.read_best(reply, ask)[0] is not None,
    "pick": lambda reply, ask: comparisons.read_best(reply, ask)[0] is not None,
}
"""Readers of written answers, by the kind of the question; of other kinds nothing is known."""


def _single(ask: Ask, reply: Reply) -> Said:
    read = judgements.read_single(reply, ask)
    return Said(judged=read.assessments, order=read.order, components=read.components)


def _number(ask: Ask, value: float | None) -> Said:
    return Said() if value is None else Said(judged={ask.shown[0]: value})


_SAYS: dict[str, Callable[[Ask, Reply], Said]] = {
    "evaluate": lambda ask, reply: Said(judged=judgements.read_evaluate(reply, ask).assessments),
    "order": lambda ask, reply: Said(order=judgements.read_order(reply, ask).order),
    "single": _single,
    "grade": lambda ask, reply: Said(judged=comparisons.read_grade(reply, ask)[0]),
    "score": lambda ask, reply: _number(ask, comparisons.read_score(reply)),
    "relevance": lambda ask, reply: _number(ask, comparisons.read_margin(reply, comparisons.ONE_ZERO)),
    "fit": lambda ask, reply: Said(
        judged={i: s for i, s in zip(ask.shown, reply.scores, strict=False) if not math.isnan(s)}
    ),
    "mark": lambda ask, reply: _number(ask, comparisons.read_mark(reply)),
}
"""What replies say of images, for who watches, by the kind of the question."""


def watched(ask: Ask) -> Ask:
    """``ask`` with ``useful`` and ``says`` set, where its kind is known and the method set none."""
    known = ask.choices or ask.read or ask.kind in _READERS or isinstance(ask, Scoring)
    if ask.useful is None and known:
        ask = replace(ask, useful=partial(_readable, ask))
    says = _SAYS.get(ask.kind)
    if ask.says is None and says is not None and ask.shown:
        ask = replace(ask, says=partial(says, ask))
    return ask


def _readable(ask: Ask, reply: Reply) -> bool:
    """`answers`, for those who only keep what answers: what no reader can take apart does not."""
    try:
        return answers(ask, reply)
    except DATA_ERRORS:
        return False


def answers(ask: Ask, reply: Reply) -> bool:
    """Whether ``reply`` says anything about what ``ask`` asks; true where its kind is unknown."""
    if reply.error is not None:
        return False
    if isinstance(ask, Scoring):
        return len(reply.scores) == len(ask.candidates) and not all(map(math.isnan, reply.scores))
    if ask.choices:
        values = [reply.logprobs.get(c) for c in ask.choices]
        return all(v is not None and not math.isnan(v) for v in values)
    if ask.read == "attention":
        return read_attention(reply, ask) is not None
    if ask.read:
        return (read_vector if ask.read == "embed" else read_tokens)(reply) is not None
    reader = _READERS.get(ask.kind)
    # a question of somebody else's may be of that name and hold no labels
    return reader is None or len(ask.labels) != len(ask.shown) or reader(reply, ask)


def unreadable(reply: Reply) -> str:
    """What to report of a reply that no reader understands: how it begins."""
    if not reply.text.strip():
        return "the reply holds nothing that was asked for"
    text = " ".join(reply.text[: 4 * SHOWN].split())
    begin = text if len(text) <= SHOWN else f"{text[:SHOWN].rstrip()}..."
    return f"the reply could not be read; it begins {begin!r}"
