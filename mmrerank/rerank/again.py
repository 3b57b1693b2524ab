"""Questions to the first stage in the middle of a ranking: another search, or vectors of its index."""

from __future__ import annotations

from collections.abc import Sequence

from mmrerank.errors import ChatError, ImageError, ImageIndexError, InputError
from mmrerank.messages import Reply, Retrieve, Stored
from mmrerank.ports import Retriever


def retrieved(retriever: Retriever | None, asks: Sequence[Retrieve]) -> list[Reply]:
    """One reply to each; an error where there is no index, or it cannot be asked.

    A `Stored` that something else can take the place of gets an empty reply instead.
    """
    searches = [a for a in asks if not isinstance(a, Stored)]
    found = iter(_searched(retriever, searches) if searches else ())
    return [_stored(retriever, a) if isinstance(a, Stored) else next(found) for a in asks]


def _searched(retriever: Retriever | None, searches: list[Retrieve]) -> list[Reply]:
    if retriever is None:
        lacking = ChatError("there is no index here that could be searched again")
        return [Reply(error=lacking, finish="error") for _ in searches]
    try:
        return [Reply(found=found) for found in retriever.retrieve(searches)]
    except (InputError, ImageIndexError) as error:  # candidates from elsewhere, an index that is gone
        failed = ChatError(f"the index cannot be searched again: {error}")
        return [Reply(error=failed, finish="error") for _ in searches]


def _stored(retriever: Retriever | None, ask: Stored) -> Reply:
    why = "there is no index here that holds vectors"
    try:
        if retriever is not None and (states := retriever.stored(ask)):
            return Reply(states=states)
        why = why if retriever is None else "the index's embedder cannot read a search after images"
    except (InputError, ImageIndexError, ImageError) as error:  # such as candidates from elsewhere
        why = f"the index's vectors cannot be used: {error}"
    return Reply() if ask.optional else Reply(error=ChatError(why), finish="error")
