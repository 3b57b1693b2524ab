"""Trees of filters, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from mmrerank.filters.tree import And, Node, Not, Or


def nodes(leaves: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    """``leaves`` joined by ``and``, ``or`` and ``not``."""
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            inner.map(lambda n: Not(part=n)),
            st.lists(inner, min_size=2, max_size=3).map(lambda n: And(parts=tuple(n))),
            st.lists(inner, min_size=2, max_size=3).map(lambda n: Or(parts=tuple(n))),
        ),
        max_leaves=5,
    )
