"""Vectors that an index holds, for methods that compare them with a query's: none is made twice."""

from __future__ import annotations

from collections.abc import Mapping

from mmrerank import catalog
from mmrerank.arithmetic import folded, query_vectors
from mmrerank.errors import InputError
from mmrerank.index.index import ImageIndex
from mmrerank.messages import Stored
from mmrerank.paths import expanded
from mmrerank.ports import Chat, Embedder, Vectors


def stored_vectors(
    request: Stored,
    index: ImageIndex,
    embedder: Embedder,
    chat: str | Chat | None,
    names: Mapping[str, str] | None = None,
) -> tuple[Vectors, ...]:
    """The query's vector and the index's own of the images asked for, ``(dim,)`` each.

    None where the embedder cannot read a query after images, or where they are only wanted of the language
    model itself, and ``chat`` is another one. ``names`` are the index's ids of candidates, where they have
    others. Raises `InputError` for an image that the index does not hold.
    """
    assert request.query is not None  # a `Retrieve` has one
    if request.optional and not embeds_by(chat, embedder):
        return ()
    pictures = [c.image for c in request.group if c.image is not None]
    if pictures and not embedder.lists:
        return ()
    if names is not None and (unknown := [i for i in request.shown if i not in names]):
        raise InputError(f"the index {index.path} has no image {unknown[0]!r}")
    held = index.vectors([names[i] if names is not None else i for i in request.shown])
    query = request.query
    after = embedder.embed_after(folded(query), pictures) if pictures else None
    asked = query_vectors(embedder, [query])[0] if after is None else after
    return (asked, *held)


def embeds_by(chat: str | Chat | None, embedder: Embedder) -> bool:
    """Whether the language model is the very model that embeds: the same weights from the same place."""
    spec = chat if isinstance(chat, str) else chat.spec if chat else ""
    named = catalog.resolve("chat", spec).spec.partition(":")[2] if spec else ""
    if not named or not embedder.place:
        return False
    if named == embedder.place:  # a hub's name
        return True
    folder = expanded(named)
    return folder.is_dir() and folder.resolve() == expanded(embedder.place).resolve()
