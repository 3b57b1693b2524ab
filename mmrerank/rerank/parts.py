"""A query taken apart, and images judged against its parts: CoTRR's first two steps, for any method.

Both are generators over questions; a reply that says nothing costs what it was about and is counted.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal

from mmrerank.messages import Ask, Reply
from mmrerank.rerank import judgements
from mmrerank.types import Assessment, Candidate, Component, Query, Repairs


def whole_query(query: Query) -> tuple[Component, ...]:
    """The query as one component, plus its exclusions: what is checked when it is not taken apart."""
    text = query.words or "shows what the reference image shows"
    kinds: list[tuple[Literal["subject", "exclusion"], str]] = [("subject", text)]
    kinds += [("exclusion", f"no {word}") for word in query.exclude]
    return tuple(
        Component(id=f"c{n}", kind=kind, text=words)
        for n, (kind, words) in enumerate(kinds, start=1)
    )


def taken_apart(
    query: Query, *, image_tokens: int = 256
) -> Generator[list[Ask], list[Reply], tuple[tuple[Component, ...], Repairs]]:
    """The query's parts; none where the reply names none."""
    (reply,) = yield [judgements.deconstruct(query, image_tokens=image_tokens)]
    read = judgements.read_deconstruct(reply)
    return read.components, read.repairs


def evaluated(
    query: Query,
    components: Sequence[Component],
    candidates: Sequence[Candidate],
    *,
    group_size: int = 1,
    image_tokens: int = 256,
) -> Generator[list[Ask], list[Reply], tuple[dict[str, Assessment], Repairs]]:
    """A verdict on every part for every candidate, by id; ``group_size`` of them stand in one question."""
    asks = [
        judgements.evaluate(
            query, components, candidates[n : n + group_size], image_tokens=image_tokens
        )
        for n in range(0, len(candidates), group_size)
    ]
    replies = yield asks
    told: dict[str, Assessment] = {}
    repairs = Repairs()
    for ask, reply in zip(asks, replies, strict=True):
        read = judgements.read_evaluate(reply, ask)
        told.update(read.assessments)
        repairs += read.repairs
    return told, repairs
