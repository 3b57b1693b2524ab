"""Reports queries that are longer than an embedder reads."""

from __future__ import annotations

from mmrerank.ports import Embedder
from mmrerank.types import Query


def overlong(embedder: Embedder, query: Query) -> list[str]:
    """A warning for each text of ``query`` whose end ``embedder`` cuts off."""
    excluded = [t.strip() for t in query.exclude if t.strip()]
    terms = [t.text.strip() for t in query.terms if t.text.strip()]
    named = [
        ("query", query.words),
        *(("text to exclude", t) for t in excluded),
        *(("term", t) for t in terms),
    ]
    found = []
    for what, text in named:
        if text and (counted := embedder.overlong(text)) is not None:
            tokens, limit = counted
            last = ", such as the last turn," if query.turns and what == "query" else ""
            found.append(
                f"the {what} has {tokens} tokens, and {embedder.spec} reads the first {limit}: "
                f"its end{last} was cut off; use fewer words"
            )
    return found
