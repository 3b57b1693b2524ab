"""A query taken apart, and images judged against its parts: CoTRR's first two steps, for any method.

Both are generators over questions; a reply that says nothing costs what it was about and is counted.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import replace

from mmrerank.messages import Ask, Reply
from mmrerank.rerank import judgements
from mmrerank.types import Assessment, Candidate, Component, Query, Repairs

_ARTICLE = re.compile(r"(?i)^(an?|the|any)\s+(?=\S)")
_WHERE = re.compile(r"(?i)(in|on|at|by|near|under|above|below|inside|after|before|during|while)\s")


def whole_query(query: Query) -> tuple[Component, ...]:
    """The query as one component, plus its exclusions: what is checked when it is not taken apart."""
    text = query.words or "shows what the reference image shows"
    return _with_unwanted((Component(id="c1", kind="subject", text=text),), query)


def _with_unwanted(components: Sequence[Component], query: Query) -> tuple[Component, ...]:
    """``components`` and, after them, one for each of the query's own exclusions."""
    by_text = {c.text: c for c in components}
    for word in query.exclude:
        bare = _ARTICLE.sub("", word.strip())
        text = f"{'not' if _WHERE.match(bare) else 'no'} {bare}"
        by_text.setdefault(text, Component(id=f"c{len(by_text) + 1}", kind="exclusion", text=text))
    return tuple(by_text.values())


def decomposed(
    query: Query, *, image_tokens: int = 256
) -> Generator[list[Ask], list[Reply], tuple[tuple[Component, ...], Repairs]]:
    """The query's parts; none where the reply names none.

    What the user excludes apart from the words is a part as it stands, and not for the model to take apart.
    """
    (reply,) = yield [judgements.deconstruct(replace(query, exclude=()), image_tokens=image_tokens)]
    read = judgements.read_deconstruct(reply)
    parts = _with_unwanted(read.components, query) if read.components else ()
    return parts, read.repairs


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
        judgements.evaluate(query, components, candidates[n : n + group_size], image_tokens=image_tokens)
        for n in range(0, len(candidates), group_size)
    ]
    replies = yield asks
    assessments: dict[str, Assessment] = {}
    repairs = Repairs()
    for ask, reply in zip(asks, replies, strict=True):
        read = judgements.read_evaluate(reply, ask)
        assessments.update(read.assessments)
        repairs += read.repairs
    return assessments, repairs
