"""Questions that are read off a model's insides instead of its words: embeddings, patches, attention.

`embed` gives one vector for what it is shown, `tokens` one for each token, `attend` says how much each image
is looked at while the search is read. What the numbers mean is the strategies' business.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmrerank.messages import Ask, Reply
from mmrerank.rerank.prompting import render
from mmrerank.rerank.replies import shown
from mmrerank.types import Candidate, Query

Matrix = NDArray[np.float32]
NOTHING = Query(text="N/A")
"""A search without content: what a model attends to, or answers, whatever is asked."""


def embed_query(query: Query, group: Sequence[Candidate] = (), *, image_tokens: int = 256) -> Ask:
    """The vector of a search; with ``group``, read after those images (E2Rank's listwise prompt)."""
    return Ask(
        messages=render("embed_query", query=query, candidates=shown(group)),
        read="embed",
        image_tokens=image_tokens,
        kind="embed_query",
        query=query,
        shown=tuple(c.id for c in group),
    )


def embed_candidate(candidate: Candidate, query: Query, *, image_tokens: int = 256) -> Ask:
    """The vector of a candidate. ``query`` says for fakes and traces what it is for; it is not shown."""
    return Ask(
        messages=render("embed_candidate", candidates=[candidate]),
        read="embed",
        image_tokens=image_tokens,
        kind="embed_candidate",
        query=query,
        shown=(candidate.id,),
    )


def tokens_of_text(text: str, query: Query) -> Ask:
    """A vector for each token of ``text``, which is ``query`` or a part of it."""
    return Ask(
        messages=render("tokens_text", text=text), read="token_embeddings", kind="tokens_text",
        query=query,
    )  # fmt: skip


def tokens_of_query(query: Query, *, image_tokens: int = 256) -> Ask:
    """A vector for each token of a search: of its reference images if it has any, else of its words."""
    return Ask(
        messages=render("embed_query", query=query, candidates=[]),
        read="token_embeddings",
        image_tokens=image_tokens,
        kind="tokens_query",
        query=query,
    )


def tokens_of_candidate(candidate: Candidate, query: Query, *, image_tokens: int = 256) -> Ask:
    """A vector for each visual token of a candidate (each token of its text, if that is all it has)."""
    return Ask(
        messages=render("tokens_candidate", candidates=[candidate]),
        read="token_embeddings",
        image_tokens=image_tokens,
        kind="tokens_candidate",
        query=query,
        shown=(candidate.id,),
    )


def attend(query: Query, group: Sequence[Candidate], *, image_tokens: int = 256) -> Ask:
    """How much each image of ``group`` is attended to from the search, which stands after them."""
    return Ask(
        messages=render("attend", query=query, candidates=shown(group)),
        read="attention",
        image_tokens=image_tokens,
        kind="attend",
        query=query,
        shown=tuple(c.id for c in group),
    )


def read_vector(reply: Reply) -> Matrix | None:
    """The unit vector ``(d,)`` of an `embed_query` or `embed_candidate`, or None."""
    return _finite(reply.states[0], 1) if reply.error is None and reply.states else None


def read_tokens(reply: Reply) -> Matrix | None:
    """Unit rows ``(n, d)`` of one of the ``tokens_*``, or None."""
    return _finite(reply.states[0], 2) if reply.error is None and reply.states else None


def read_attention(reply: Reply, ask: Ask) -> list[Matrix] | None:
    """One array ``(tokens,)`` for each image of the group, or None. Reference images are left out.

    None too where a candidate has no image: there would be nothing to attend to.
    """
    pictures = sum(p.image is not None for m in ask.messages for p in m.parts)
    references = len(ask.query.images) if ask.query else 0
    found = [_finite(s, 1) for s in reply.states]
    images = found[len(found) - len(ask.shown) :] if pictures - references == len(ask.shown) else []
    whole = [i for i in images if i is not None and i.size]
    return whole if reply.error is None and len(whole) == len(ask.shown) and whole else None


def _finite(array: Matrix, dimensions: int) -> Matrix | None:
    found = np.asarray(array, dtype=np.float32)
    good = found.ndim == dimensions and found.size > 0 and bool(np.isfinite(found).all())
    return found if good else None
