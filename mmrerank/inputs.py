"""What people hold, as values: queries, candidates and images out of strings, paths, bytes, PIL and NumPy.

A bare string is always text. One that looks like the name or the address of a picture is nearly always meant
as that, and is refused with the way to say so. Raises `UsageError` for whatever cannot be taken.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from numbers import Real
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from mmrerank.errors import ImageError, UsageError
from mmrerank.images.formats import IMAGE_SUFFIXES
from mmrerank.images.urls import Urls, fetch, is_url
from mmrerank.limits import shown
from mmrerank.types import Candidate, Image, Query, Ranking, Term

AllowUrls = bool | Urls
"""Whether pictures are fetched: no (the default), from the public internet, or as `Urls` says."""
_IMAGES = "a pathlib.Path, bytes, a PIL image, a NumPy array or mmrerank.Image"


def to_query(
    query: Any,
    images: Any = (),
    exclude: Any = (),
    *,
    plus: Any = (),
    minus: Any = (),
    allow_urls: AllowUrls = False,
) -> Query:
    """``query``, words or a `Query`, with reference ``images``, words to ``exclude`` and terms that are added
    (``plus``) and taken away (``minus``) beside its own.
    """
    if not isinstance(query, str | Query):
        raise UsageError(
            f"a query is text or mmrerank.Query, not {type(query).__name__}; reference images go into "
            "images=, several queries into search_batch or rank_batch"
        )
    if isinstance(query, str) and looks_like_picture(query):
        raise UsageError(
            f"the query {shown(query)} looks like a picture, and a string is always text. To search with a "
            f'picture: search("", images=[Path({shown(query)})]); to search for these words: '
            f"Query(text={shown(query)})"
        )
    given = tuple(to_image(i, allow_urls=allow_urls) for i in _listed(images))
    terms = tuple(
        to_term(t, sign, allow_urls=allow_urls)
        for several, sign in ((plus, 1), (minus, -1))
        for t in _listed(several)
    )
    words = (exclude,) if isinstance(exclude, str) else tuple(several(exclude, "exclude"))
    try:
        if isinstance(query, str):
            return Query(text=query, images=given, exclude=words, terms=terms)
        if not given and not words and not terms:
            return query
        return replace(
            query,
            images=(*query.images, *given),
            exclude=(*query.exclude, *words),
            terms=(*query.terms, *terms),
        )
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error


def to_term(item: Any, sign: int, *, allow_urls: AllowUrls = False) -> Term:
    """A term of words, of anything `to_image` takes, or a `Term`, whose weight is multiplied by ``sign``."""
    if isinstance(item, Term):
        return replace(item, weight=sign * item.weight)
    if not isinstance(item, str) or (allow_urls and is_url(item)):
        return Term(image=to_image(item, allow_urls=allow_urls), weight=sign)
    if looks_like_picture(item):
        raise UsageError(
            f"the term {shown(item)} looks like a picture, and a string is always text. For the picture: "
            f"pathlib.Path({shown(item)}); for these very words: mmrerank.Term(text={shown(item)})"
        )
    return Term(text=item, weight=sign)


def _listed(items: Any) -> Iterable[Any]:
    """``items``, or what is one thing in a list of its own."""
    alone = isinstance(items, str | bytes | PurePath | Image | Term | np.ndarray) or _is_pil(items)
    return (items,) if alone or not isinstance(items, Iterable) else items


def typed(name: str, value: Any, kinds: tuple[type, ...], words: str) -> None:
    """Raises `UsageError` unless ``value`` is None or of one of ``kinds``; ``words`` say what is meant."""
    if value is not None and not isinstance(value, kinds):
        raise UsageError(f"{name} is {words}, not {type(value).__name__}")


def watching(progress: Any, cancel: Any, on_event: Any, *, keep: Any = None) -> None:
    """Raises `UsageError` for what cannot be called, or cannot cancel."""
    for name, value in (("progress", progress), ("on_event", on_event), ("keep", keep)):
        if value is not None and not callable(value):
            raise UsageError(f"{name} is a function, not {type(value).__name__}")
    typed("cancel", cancel, (threading.Event,), "a threading.Event")


def pairs(requests: Any) -> list[tuple[Any, Any]]:
    """Requests as pairs of a query and its candidates."""
    found = [tuple(r) if isinstance(r, tuple | list) else (r,) for r in several(requests, "a batch")]
    for request in found:
        if len(request) != 2:
            raise UsageError("a batch is a list of pairs: a query and its candidates")
    return [(query, candidates) for query, candidates in found]


def several(items: Any, what: str) -> Iterable[Any]:
    """``items``, which are a list or the like. Raises `UsageError` for one thing, or none."""
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise UsageError(f"{what} is a list, not {type(items).__name__}")
    return items


def to_ranking(candidates: Any, *, allow_urls: AllowUrls = False) -> Ranking:
    """A ranking of anything `to_candidate` takes; candidates without an id get their position."""
    if isinstance(candidates, Ranking):
        return candidates
    one_array = isinstance(candidates, np.ndarray) and candidates.ndim < 4
    if isinstance(candidates, PurePath | Image | Candidate) or one_array or _is_pil(candidates):
        raise UsageError("candidates are a list, also where there is only one: [image]")
    found = several(candidates, "what is ranked")
    try:
        return Ranking(tuple(to_candidate(c, str(n), allow_urls=allow_urls) for n, c in enumerate(found)))
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error


def to_candidate(item: Any, default_id: str, *, allow_urls: AllowUrls = False) -> Candidate:
    """A candidate from a `Candidate`, `Image`, `Path`, bytes, PIL image, array, text or dictionary.

    A bare string is text, never a path; a path is a `Path`, and its id the path as given. A dictionary has
    the keys id, image, text, score, metadata. With ``allow_urls``, an address is a picture, and one that
    cannot be fetched is a candidate whose picture cannot be shown.
    """
    if isinstance(item, Candidate):
        return item
    if isinstance(item, str):
        if allow_urls and is_url(item):
            return Candidate(id=item, image=_fetched(item, allow_urls))
        if looks_like_picture(item):
            raise UsageError(
                f"the candidate {shown(item)} looks like a picture, and a string is always text. For the "
                f"picture: {_way(item)}; for these very words: {{'text': {shown(item)}}}"
            )
        return Candidate(id=default_id, text=item)
    if isinstance(item, Mapping):
        known = {f.name for f in fields(Candidate)}
        if unknown := set(item) - known:
            raise UsageError(f"a candidate has no {sorted(map(str, unknown))[0]!r}; it has {sorted(known)}")
        values = dict(item)
        image = values.get("image")
        if isinstance(image, str) and allow_urls and is_url(image):
            values["image"] = _fetched(image, allow_urls)
        elif image is not None:
            values["image"] = to_image(image)
        score = values.get("score")
        if isinstance(score, bool) or not isinstance(score, Real | None):
            raise UsageError(f"a candidate's score is a number, not {score!r}")
        values["id"] = str(values.get("id", default_id))  # ids are often numbers elsewhere
        return Candidate(**values)
    id_ = item.as_posix() if isinstance(item, PurePath) else default_id
    return Candidate(id=id_, image=to_image(item))


def to_image(item: Any, *, allow_urls: AllowUrls = False) -> Image:
    """An `Image` from an `Image`, a `Path`, encoded bytes, a PIL image or an array.

    An array is ``(height, width)``, or with 1, 3 (RGB) or 4 (RGBA) channels last: uint8 or bool, or floats
    from 0 to 1. With ``allow_urls`` an address is fetched; raises `ImageError` where that fails.
    """
    if isinstance(item, Image):
        return item
    if isinstance(item, Path):
        return Image(path=item)
    if isinstance(item, bytes | bytearray | memoryview):
        return Image(data=bytes(item))
    if isinstance(item, np.ndarray):
        return _of_array(item)
    if _is_pil(item):
        from mmrerank.images import encoded

        return encoded(item)
    if isinstance(item, str) and is_url(item) and allow_urls:
        return Image(data=fetch(item, _allowed(allow_urls)), url=item.strip())
    if isinstance(item, str):
        raise UsageError(f"an image is {_IMAGES}, and a bare string is always text: write {_way(item)}")
    raise UsageError(f"an image is {_IMAGES}, not {type(item).__name__}")


def looks_like_picture(text: str) -> bool:
    """Whether ``text`` is one line that names a file or an address of a picture.

    >>> [looks_like_picture(t) for t in ("photos/boat.JPG", "https://a.org/x?id=1", "a boat", "like a.jpg")]
    [True, True, False, False]
    """
    line = text.strip()
    if "\n" in line or not line:
        return False
    if line[:5].casefold() == "data:" and line[5:11].casefold() == "image/":
        return True
    if is_url(line) or line[:5].casefold() == "file:":
        return not any(c.isspace() for c in line)
    name = line.replace("\\", "/").rpartition("/")
    if not any(name[2].casefold().endswith(s) for s in IMAGE_SUFFIXES):
        return False
    # words may end in a file's name; without a folder, blanks speak for words
    return bool(name[1]) or not any(c.isspace() for c in line)


def _way(text: str) -> str:
    """How a string is said to be the picture that it names."""
    if is_url(text):
        return f"with allow_urls=True, {{'image': {shown(text)}}} among candidates or images=[{shown(text)}]"
    return f"pathlib.Path({shown(text)})"


def _allowed(allow_urls: AllowUrls) -> Urls:
    return allow_urls if isinstance(allow_urls, Urls) else Urls()


def _fetched(url: str, allow_urls: AllowUrls) -> Image:
    """The picture at ``url``; where it cannot be had, one that cannot be read, for that reason."""
    try:
        return Image(data=fetch(url, _allowed(allow_urls)), url=url.strip())
    except ImageError as error:
        return Image(data=b"", url=url.strip(), problem=str(error))


def _is_pil(item: Any) -> bool:
    return "PIL.Image" in sys.modules and isinstance(item, sys.modules["PIL.Image"].Image)


def _of_array(array: Any) -> Image:
    from PIL.Image import fromarray

    from mmrerank.images import encoded

    kind = f"an array of shape {array.shape} and {array.dtype}"
    flat = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if flat.ndim not in (2, 3) or (flat.ndim == 3 and flat.shape[2] not in (3, 4)) or 0 in flat.shape:
        raise UsageError(
            f"{kind} is no image: it is (height, width) or (height, width, channels) with 1, 3 or 4 channels"
        )
    if flat.dtype == bool:
        flat = flat.astype(np.uint8) * 255
    elif np.issubdtype(flat.dtype, np.floating):
        if not (np.isfinite(flat).all() and flat.min() >= 0 and flat.max() <= 1):
            raise UsageError(f"{kind}: floats must be from 0 to 1; write (array * 255).astype('uint8')")
        flat = np.rint(flat * 255).astype(np.uint8)
    elif flat.dtype != np.uint8:
        raise UsageError(f"{kind} is no image: numbers are uint8 (0 to 255), bool, or floats from 0 to 1")
    return encoded(fromarray(np.ascontiguousarray(flat)))
