"""The two questions of UniME-V2 in its authors' words, for any model: one candidate, or which of up to nine.

GaryGuTC/UniME-v2@e3deb73, Embedding/src/model_utils.py (``construct_rerank_messages``). Each candidate of a
list has its number in brackets. The model that was trained on them has a scorer of its own
(``unime_reranker:PATH``), which also begins the answer for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from mmrerank.messages import Ask, Reply
from mmrerank.rerank.comparisons import read_margin
from mmrerank.rerank.prompting import load, render
from mmrerank.rerank.replies import labels_for
from mmrerank.rerank.scoring import said, shortened
from mmrerank.types import Candidate, Query

YES_NO = ("Yes", "No")
MOST = 9
"""Candidates of one question: each number is one digit, and ``10`` begins like ``1``."""
_NUMBER = re.compile(r"\(\s*(\d{1,3})\s*\)|(?<![\w.])(\d{1,3})(?![\w.])")


def pair(query: Query, candidate: Candidate, *, image_tokens: int = 256, exact: bool = False) -> Ask:
    """Does the candidate meet the requirements? Read as log-probabilities of Yes and No.

    With ``exact`` only these very tokens count, as in the model that was trained on them.
    """
    return Ask(
        messages=render("judge", query=query, words=said(query), candidates=[_shown(candidate, "")]),
        choices=YES_NO,
        image_tokens=image_tokens,
        exact=exact,
        kind="score",
        query=query,
        shown=(candidate.id,),
        labels=YES_NO,
    )


def read_pair(reply: Reply) -> float | None:
    """Log P(Yes) - log P(No), or None where the reply does not say."""
    return read_margin(reply, YES_NO)


def best(query: Query, group: Sequence[Candidate], *, image_tokens: int = 256, written: bool = False) -> Ask:
    """Which of 2 to 9 candidates is best? Read as log-probabilities of their digits, or ``written``.

    Raises `ValueError` for more: a number would no longer be one token.
    """
    if not 2 <= len(group) <= MOST:
        raise ValueError(f"a list has 2 to {MOST} candidates, not {len(group)}")
    labels = _labels(len(group))
    shown = [_shown(c, n) for n, c in zip(labels, group, strict=True)]
    return Ask(
        messages=render("unime_list", query=query, words=said(query), candidates=shown),
        choices=() if written else labels,
        max_tokens=128 if written else 1024,  # what the authors' code lets it write
        image_tokens=image_tokens,
        kind="best" if written else "pick",
        query=query,
        shown=tuple(c.id for c in group),
        labels=labels,
    )


def _labels(count: int) -> tuple[str, ...]:
    """What candidates are called: by number, or by letter where the profile's prompt says ``c.letter``."""
    lettered = "c.letter" in load("unime_list").body
    return labels_for(count) if lettered else tuple(str(n) for n in range(1, count + 1))


def read_best(reply: Reply, ask: Ask) -> Mapping[str, float]:
    """Log-probability by candidate id of a reply to `best`; of a written one, 0 of the one that it names.

    Empty where it does not say.

    >>> ask = best(Query(text="a boat"), [Candidate(id=i, text=i) for i in "abc"], written=True)
    >>> read_best(Reply(text="Ans: (3)"), ask)
    {'c': 0.0}
    """
    if reply.error is not None:
        return {}
    if not ask.choices:
        found = _NUMBER.search(reply.text)
        place = int(found[1] or found[2]) if found else 0
        return {ask.shown[place - 1]: 0.0} if 1 <= place <= len(ask.shown) else {}
    values = [reply.logprobs.get(n, math.nan) for n in ask.labels]
    return {} if any(map(math.isnan, values)) else dict(zip(ask.shown, values, strict=True))


def _shown(candidate: Candidate, label: str) -> dict[str, object]:
    text = None if candidate.text is None else shortened(candidate.text)
    return {"number": label, "letter": label, "image": candidate.image, "text": text}
