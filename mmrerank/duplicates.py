"""Which images of a search are copies of each other: one of them stands for all.

``identical`` are files with the same bytes. ``near`` are these, and copies that were resized, compressed
again or made slightly brighter: their vectors are alike, and so is how they look (`mmrerank.images.look`).
Vectors alone would not do: an embedder that cannot tell pictures apart would make one of all.

Each image, best first, is compared with the images that stand for others so far, best first, and joins the
first that it is a copy of. So nothing depends on the order in which an index was made, and an image that is
unlike the first of a group never joins it over a third.

An image is decoded, once, where the vector of another is alike: with an embedder that tells photographs apart
a few of a search, with one that does not all that are gathered. Ten thousand different images take 13 s of vectors
alone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mmrerank.errors import ImageError, UsageError
from mmrerank.images import decode
from mmrerank.images.look import Look, look_of
from mmrerank.limits import shown
from mmrerank.ports import Vectors
from mmrerank.types import Candidate, Image

Collapse = Literal["none", "identical", "near"]
"""What is shown once: every image (``none``), images of the same bytes, or of the same look as well."""
ALIKE = 0.9
"""The least cosine of copies. It only says which pairs are worth a look: CLIP ViT-B/32 puts different
photographs at up to 0.98, and 1 in 200 pairs above this."""
_KEPT = 20_000  # looks in memory, 18 MB
_NAMED = 3


def check_collapse(value: Any) -> None:
    """Raises `UsageError` for what is no `Collapse`."""
    if value not in get_args(Collapse):
        raise UsageError(f"collapse must be one of {', '.join(get_args(Collapse))}, not {shown(value)}")


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Images that stand for their copies, best first.

    ``copies`` are the others' ids, best first, by the id of the one that stands for them. ``unseen`` says of
    images whose vector is like another's why they could not be looked at: they stand for themselves.
    """

    kept: tuple[Candidate, ...]
    copies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unseen: Mapping[str, str] = field(default_factory=dict)


class Looks:
    """How images look, kept in memory by their bytes. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Look | str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, image: Image | None) -> Look | str:
        """The look of an image, or why it has none."""
        if image is None:
            return "there is no picture"
        with self._lock:
            known = self._known.get(image.sha256 or "")
        if known is not None:
            return known
        try:
            found: Look | str = look_of(decode(image))
        except ImageError as error:
            return str(error)  # it may be there the next time
        if image.sha256:
            with self._lock:
                self._known[image.sha256] = found
                if len(self._known) > _KEPT:
                    self._known.popitem(last=False)
        return found


def groups(
    found: Sequence[Candidate], most: int, *, vectors: Vectors | None = None, looks: Looks | None = None
) -> Groups:
    """At most ``most`` images of ``found`` (best first), and which others are copies of them.

    With ``vectors`` ``(len(found), dim)``, of length 1, and ``looks``, near copies count as well.
    """
    by_bytes: dict[str, int] = {}
    kept: list[Candidate] = []
    copies: list[list[str]] = []
    near = None if vectors is None or looks is None else _Near(vectors, min(most, len(found)), looks)
    for place, candidate in enumerate(found):
        bytes_ = candidate.image.sha256 if candidate.image is not None else None
        of = by_bytes.get(bytes_) if bytes_ else None
        if of is None and near is not None:
            of = near.first_like(place, candidate)
        if of is None and len(kept) == most:
            continue
        if of is None:
            of = len(kept)
            kept.append(candidate)
            copies.append([])
            if near is not None:
                near.add(place, candidate)
        else:
            copies[of].append(candidate.id)
        if bytes_:
            by_bytes.setdefault(bytes_, of)
    more = {c.id: tuple(ids) for c, ids in zip(kept, copies, strict=True) if ids}
    unseen = {} if near is None else {c.id: near.unseen[c.id] for c in kept if c.id in near.unseen}
    return Groups(kept=tuple(kept), copies=more, unseen=unseen)


class _Near:
    """The images that stand for others so far: their vectors, and the looks of those that were looked at."""

    def __init__(self, vectors: Vectors, most: int, looks: Looks) -> None:
        self._vectors, self._looks = vectors, looks
        self._first = np.empty((most, vectors.shape[1]), dtype=np.float32)
        self._candidates: list[Candidate] = []
        self._seen: dict[int, Look | None] = {}
        self.unseen: dict[str, str] = {}

    def add(self, place: int, candidate: Candidate) -> None:
        """``candidate`` stands for others from now on."""
        self._first[len(self._candidates)] = self._vectors[place]
        self._candidates.append(candidate)

    def first_like(self, place: int, candidate: Candidate) -> int | None:
        """The first of the images so far that ``candidate`` is a copy of."""
        count = len(self._candidates)
        alike: NDArray[np.int64] = np.flatnonzero(
            self._first[:count] @ self._vectors[place].astype(np.float32) >= ALIKE
        )
        if not len(alike) or (look := self._look(candidate)) is None:
            return None
        for number in alike.tolist():
            other = self._seen[number] if number in self._seen else self._look(self._candidates[number])
            self._seen[number] = other
            if other is not None and look.alike(other):
                return int(number)
        return None

    def _look(self, candidate: Candidate) -> Look | None:
        look = self._looks.of(candidate.image)
        if isinstance(look, Look):
            return look
        self.unseen[candidate.id] = look
        return None


def unseen_warnings(unseen: Mapping[str, str]) -> list[str]:
    """Says which images could not be compared by sight."""
    if not unseen:
        return []
    named = "; ".join(f"{id_}: {why}" for id_, why in list(unseen.items())[:_NAMED])
    more = f"; and {len(unseen) - _NAMED} more" if len(unseen) > _NAMED else ""
    s = "" if len(unseen) == 1 else "s"
    return [f"{len(unseen)} image{s} could not be looked at, and may be shown beside a copy: {named}{more}"]
