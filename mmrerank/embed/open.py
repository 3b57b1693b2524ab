"""Opens an embedder by what the user typed: a short name of the catalogue or ``PLUGIN:REST``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmrerank import registry
from mmrerank.errors import MissingExtraError, ModelError
from mmrerank.ports import Embedder


def open_embedder(spec: str, *, remembered_by: str | Path = "", expect: str = "", **options: Any) -> Embedder:
    """The embedder for ``spec``, with the catalogue's ``.domain`` where the catalogue has one.

    ``.spec`` is a short name as typed; other specs come back with local paths made absolute, so that what
    an index remembers still opens from another folder. ``remembered_by`` names the index that ``spec`` is
    from: an error then says what to do where the model was moved. ``expect`` is the fingerprint that it must
    have, for plug-ins that can compare it before they load weights; then `MismatchError` is raised for
    another. ``options`` and errors are those of `mmrerank.registry.opened`.
    """
    if expect and registry.takes("embedder", spec, "expect"):
        options["expect"] = expect
    try:
        card, found = registry.opened("embedder", spec, options, Embedder)
    except MissingExtraError:
        raise
    except ModelError as error:
        if not remembered_by:
            raise
        raise ModelError(
            f"{error}. The index {remembered_by} was made with this model. If it was moved, name its new "
            "place with --embedder (in Python: embedder=...); `mmrerank index` with it lets the index "
            "remember it"
        ) from error
    embedder: Embedder = found
    if card.name != card.spec:
        embedder.spec = card.name
    if card.domain:
        embedder.domain = card.domain
    return embedder
