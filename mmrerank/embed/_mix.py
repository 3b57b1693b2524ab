"""Turns queries of any kind into one unit vector each, for embedders with a text and an image tower.

Loads no model: the two towers are given as functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmrerank.errors import ImageError
from mmrerank.images import decode
from mmrerank.ports import Vectors
from mmrerank.types import Query

EXCLUSION_WEIGHT = 0.5
"""How much of the direction of the excluded words is taken away; a common choice, not a tuned one."""


def unit(vectors: Any) -> Vectors:
    """Rows of ``(n, d)`` scaled to length 1; a zero row stays zero."""
    wide = np.asarray(vectors, dtype=np.float64)
    length = np.linalg.norm(wide, axis=-1, keepdims=True)
    return (wide / np.where(length > 0, length, 1.0)).astype(np.float32)


def mix(
    queries: Sequence[Query],
    texts: Callable[[Sequence[str]], Vectors],
    images: Callable[[Sequence[Any]], Vectors],
    *,
    text_weight: float,
) -> Vectors:
    """Unit vectors ``(len(queries), d)``.

    - text and dialogue: the words (earlier turns first, joined) through the text tower;
    - image: the mean of the images' vectors;
    - composed: ``text_weight`` x text + (1 - ``text_weight``) x images, scaled to length 1;
    - ``exclude``: half the mean vector of the excluded words is subtracted.

    ``instruction`` is ignored: two-tower models follow none. Raises `ImageError` when a query's image
    cannot be decoded.
    """
    words = {t: i for i, t in enumerate(dict.fromkeys(t for q in queries for t in _texts(q)))}
    text_vectors = texts(list(words))
    pictures = images([picture for q in queries for picture in decoded(q)])
    rows = []
    at = 0
    for query in queries:
        shown = pictures[at : at + len(query.images)].astype(np.float64)
        at += len(query.images)
        if not query.words:
            vector = unit(shown.mean(axis=0))
        elif not query.images:
            vector = text_vectors[words[query.words]]
        else:
            seen = unit(shown.mean(axis=0))
            vector = unit(text_weight * text_vectors[words[query.words]] + (1 - text_weight) * seen)
        rows.append(without(vector, [text_vectors[words[t]] for t in query.exclude if t.strip()]))
    return np.stack(rows).astype(np.float32) if rows else text_vectors


def decoded(query: Query) -> list[Any]:
    """The query's images as RGB ``PIL.Image``. Raises `ImageError` naming the one that cannot be decoded."""
    pictures = []
    for number, image in enumerate(query.images, start=1):
        try:
            pictures.append(decode(image))
        except ImageError as error:
            name = f" ({image.path})" if image.path else ""
            raise ImageError(f"image {number} of the query{name}: {error}") from error
    return pictures


def without(vector: Any, excluded: Sequence[Any]) -> Any:
    """Unit ``vector`` less half the mean direction of ``excluded`` vectors, if there are any."""
    if not excluded:
        return vector
    less = unit(vector - EXCLUSION_WEIGHT * unit(np.mean(excluded, axis=0)))
    return less if less.any() else vector


def _texts(query: Query) -> list[str]:
    return [*([query.words] if query.words else []), *(t for t in query.exclude if t.strip())]
