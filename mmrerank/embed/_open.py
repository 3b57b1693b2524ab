"""Opens an embedder by what the user typed: a short name of the catalogue or ``PLUGIN:REST``."""

from __future__ import annotations

import inspect
from typing import Any

from mmrerank import catalog, registry
from mmrerank.errors import UsageError
from mmrerank.ports import Embedder


def open_embedder(spec: str, **options: Any) -> Embedder:
    """The embedder for ``spec``, with the catalogue's ``.domain`` where the catalogue has one.

    ``.spec`` is a short name as typed; other specs come back with local paths made absolute, so that what
    an index remembers still opens from another folder. ``options`` go to the plug-in's ``open``; those that
    are None count as not given. Raises `UsageError` for an unknown form or option, and what the plug-in's
    ``open`` raises.
    """
    card = catalog.resolve("embedder", spec)
    name, _, rest = card.spec.partition(":")
    if name not in registry.names("embedder"):
        raise UsageError(f"there is no embedder {spec!r}; {forms()}")
    opener = registry.load("embedder", name).open
    given = {k: v for k, v in options.items() if v is not None}
    allowed = set(inspect.signature(opener).parameters) - {"rest"}
    if wrong := sorted(given.keys() - allowed):
        raise UsageError(
            f"embedder {name!r} takes no {wrong[0]!r}; its options are {', '.join(sorted(allowed))}"
        )
    embedder: Embedder = opener(rest, **given)
    if card.name != card.spec:
        embedder.spec = card.name
    if card.domain:
        embedder.domain = card.domain
    return embedder


def forms() -> str:
    """How an embedder can be named, in one line."""
    shapes = [registry.load("embedder", n).FORM for n in registry.names("embedder")]
    short = [c.name for c in catalog.cards() if c.kind == "embedder"]
    return f"forms are {', '.join(shapes)}; short names are {', '.join(short)}"
