"""Questions to a dedicated reranker: the query and candidates as they are, for it has a prompt of its own.

How many candidates such a model reads at once is the model's affair. The driver says it while a method makes
its questions (`grouped`), so that no method knows of any model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from mmrerank.limits import in_force
from mmrerank.messages import Message, Part, Reply, Scoring
from mmrerank.types import Candidate, Image, Query

_group: ContextVar[int] = ContextVar("candidates that are scored together", default=1)


@contextmanager
def grouped(count: int) -> Iterator[None]:
    """Within it, the model that is asked reads ``count`` candidates together."""
    token = _group.set(max(count, 1))
    try:
        yield
    finally:
        _group.reset(token)


def group() -> int:
    """How many candidates the model that is asked reads together; 1: each by itself."""
    return _group.get()


def fit(query: Query, candidates: Sequence[Candidate], *, instruction: str = "") -> Scoring:
    """How well ``candidates`` fit ``query``. The query's own instruction goes before ``instruction``."""
    told = query.instruction.strip() or instruction.strip()
    turns = [Message(role="user", parts=_parts(query.images, said(query)))]
    turns += [
        Message(role="user", parts=_parts(() if c.image is None else (c.image,), shortened(c.text or "")))
        for c in candidates
    ]
    system = [Message(role="system", parts=(Part(text=told),))] if told else []
    return Scoring(messages=(*system, *turns), kind="fit", query=query, shown=tuple(c.id for c in candidates))


def said(query: Query) -> str:
    """All that a query says in words: turns of a dialogue on lines of their own, exclusions at the end.

    >>> said(Query(text="a street", exclude=("people", "cars")))
    'a street, without people, without cars'
    """
    lines = "\n".join(t.strip() for t in (*query.turns, query.text) if t.strip())
    without = (f"without {word.strip()}" for word in query.exclude if word.strip())
    return ", ".join(filter(None, (lines, *without)))


def read_fit(reply: Reply, ask: Scoring) -> Mapping[str, float]:
    """Scores by candidate id; a candidate of which nothing is known has none."""
    if reply.error is not None or len(reply.scores) != len(ask.shown):
        return {}
    return {i: s for i, s in zip(ask.shown, reply.scores, strict=True) if not math.isnan(s)}


def _parts(images: Sequence[Image], text: str) -> tuple[Part, ...]:
    shown = tuple(Part(image=i) for i in images)
    return (*shown, Part(text=text)) if text or not shown else shown


def shortened(text: str) -> str:
    """As far as it is read; the result says what was cut."""
    most = in_force().caption_characters
    return text if len(text) <= most else f"{text[:most]} ..."
