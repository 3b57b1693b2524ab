"""Opens an embedder by what the user typed: a short name of the catalogue or ``PLUGIN:REST``."""

from __future__ import annotations

from typing import Any

from mmrerank import registry
from mmrerank.ports import Embedder


def open_embedder(spec: str, **options: Any) -> Embedder:
    """The embedder for ``spec``, with the catalogue's ``.domain`` where the catalogue has one.

    ``.spec`` is a short name as typed; other specs come back with local paths made absolute, so that what
    an index remembers still opens from another folder. ``options`` and errors are those of
    `mmrerank.registry.opened`.
    """
    card, found = registry.opened("embedder", spec, options, Embedder)
    embedder: Embedder = found
    if card.name != card.spec:
        embedder.spec = card.name
    if card.domain:
        embedder.domain = card.domain
    return embedder
