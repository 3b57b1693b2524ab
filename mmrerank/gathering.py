"""Gathers the first stage of a search: as many images as were asked for, copies counted once.

Loads no model: it is given what finds the nearest images, and asks for more of them until there are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mmrerank.duplicates import Collapse, Groups, Looks, groups, unseen_warnings
from mmrerank.index.index import ImageIndex
from mmrerank.limits import way
from mmrerank.types import Candidate, Hit, Query

Keep = Callable[[Candidate], bool]
"""Whether an image of the index is searched."""
Fetch = Callable[[int], Sequence[Candidate]]
"""The so many nearest images, best first; fewer where there are no more."""


@dataclass(kw_only=True)
class Copies:
    """Finds the copies among images of ``index``, and remembers what it found for one search."""

    index: ImageIndex
    kind: Collapse
    looks: Looks
    known: dict[str, dict[str, None]] = field(default_factory=dict)
    """Ids of copies by the id of the image that stood for them, in any group so far."""

    def of(self, found: Sequence[Candidate], most: int) -> Groups:
        """`mmrerank.duplicates.groups` of ``found``."""
        near = self.kind == "near" and len(found) > 1
        vectors = self.index.vectors([c.id for c in found]) if near else None
        made = groups(found, most, vectors=vectors, looks=self.looks if near else None)
        for id_, copies in made.copies.items():
            self.known.setdefault(id_, {}).update(dict.fromkeys(copies))
        return made


def copies_in(index: ImageIndex, kind: Collapse, looks: Looks) -> Copies | None:
    """What finds copies; None where none are to be found."""
    return None if kind == "none" else Copies(index=index, kind=kind, looks=looks)


def gathered(fetch: Fetch, k: int, most: int, *, keep: Keep | None, copies: Copies | None) -> Groups:
    """The ``k`` nearest images that ``keep`` takes, copies counted once; looks at ``most`` images at most.

    The copies that are named are those among the images that were fetched.
    """
    if keep is None and copies is None:
        return Groups(kept=tuple(fetch(k)))
    size, taken = k, dict[str, bool]()
    while True:
        size = min((2 if keep is None else 4) * size, most)
        found = fetch(size)
        if keep is not None:
            taken |= {c.id: bool(keep(c)) for c in found if c.id not in taken}
        kept = [c for c in found if keep is None or taken[c.id]]
        made = Groups(kept=tuple(kept[:k])) if copies is None else copies.of(kept, k)
        if len(made.kept) >= k or size == most or len(found) < size:
            return made


def short(
    few: int, wanted: int, most: int, size: int, *, keep: Keep | None, copies: Copies | None
) -> list[str]:
    """Says where ``few`` were found of ``wanted``, and not all ``size`` images of the index were seen."""
    if few >= wanted or size <= most or (keep is None and copies is None):
        return []
    what = f"keep took {few} of" if copies is None else f"{few} different pictures are among"
    return [f"{what} the {most:,} nearest images; others were not looked at; {way('results')}"]


@dataclass(kw_only=True)
class Collapsed:
    """What stands for what in one query's search, from the first stage to the end."""

    query: Query
    groups: Groups
    copies: Copies | None

    def found_again(self, found: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """``found`` by searching again, with the image that is known already in the place of its copies."""
        if self.copies is None:
            return tuple(found)
        first = {c.id: c for c in self.groups.kept}
        new = [c for c in found if c.id not in first]
        whole = self.copies.of([*self.groups.kept, *new], len(first) + len(new))
        merged = {i: dict.fromkeys(ids) for i, ids in self.groups.copies.items()}
        for id_, ids in whole.copies.items():
            merged.setdefault(id_, {}).update(dict.fromkeys(ids))
        self.groups = replace(
            whole,
            copies={i: tuple(ids) for i, ids in merged.items()},
            unseen={**self.groups.unseen, **whole.unseen},
        )
        by_id = {c.id: c for c in whole.kept}
        stands = {copy: id_ for id_, ids in merged.items() for copy in ids}
        shown = {c.id: c for c in found}
        order = dict.fromkeys(stands.get(c.id, c.id) for c in found)
        return tuple(shown.get(i, by_id[i]) for i in order)

    def hits(self, hits: tuple[Hit, ...]) -> tuple[Hit, ...]:
        """``hits`` with the copies that each stands for; of two that are copies the later one is left out."""
        if self.copies is None:
            return hits
        more = {h.id: self._copies_of(h.id) for h in hits}
        if any(h.first_rank is None for h in hits):
            # found by a method under words of its own: not yet compared with the others
            last = self.copies.of([h.candidate for h in hits], len(hits))
            for id_, ids in last.copies.items():
                more[id_] = list(dict.fromkeys(n for i in (id_, *ids) for n in (i, *more.get(i, ()))))
            kept = {c.id for c in last.kept}
            hits = tuple(h for h in hits if h.id in kept)
        return tuple(
            replace(h, rank=n, duplicates=tuple(i for i in more[h.id] if i != h.id))
            for n, h in enumerate(hits, start=1)
        )

    def _copies_of(self, id_: str) -> list[str]:
        known: Mapping[str, None] = {} if self.copies is None else self.copies.known.get(id_, {})
        own = self.groups.copies.get(id_)
        # of an image that was found again, whatever stood behind it there
        return list(known if own is None and id_ not in {c.id for c in self.groups.kept} else own or ())

    def warnings(self, hits: Sequence[Hit]) -> list[str]:
        """Which of ``hits`` could not be compared by sight."""
        return unseen_warnings({h.id: w for h in hits if (w := self.groups.unseen.get(h.id))})
