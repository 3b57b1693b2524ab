"""What a run did to an index. Pure data."""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from mmrerank.types import LeftOut


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A source (its id) that is not in the index, and why."""

    source: str
    error: str


FIRST = 20
"""So many of the images that stayed are named: of a drive that is away there may be millions."""


class Failures(Sequence[Failure]):
    """Many failures of a few reasons: some forty bytes each beside the name, for there may be millions."""

    def __init__(self) -> None:
        self._names, self._ends = bytearray(), array("q")
        self._reasons: dict[str, int] = {}
        self._reason = array("l")

    def add(self, source: str, error: str) -> None:
        """Takes another."""
        self._names += source.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._names))
        self._reason.append(self._reasons.setdefault(error, len(self._reasons)))

    def counts(self) -> dict[str, int]:
        """How many there are of each reason, in the order they first came."""
        found = Counter(self._reason)
        return {reason: found[number] for reason, number in self._reasons.items()}

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, at: int) -> Failure: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Failure, ...]: ...
    def __getitem__(self, at: int | slice) -> Failure | tuple[Failure, ...]:
        if isinstance(at, slice):
            return tuple(self[n] for n in range(*at.indices(len(self))))
        at = range(len(self))[at]
        name = bytes(self._names[self._ends[at - 1] if at else 0 : self._ends[at]])
        return Failure(
            source=name.decode("utf-8", "surrogatepass"), error=list(self._reasons)[self._reason[at]]
        )


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a run did to the index in folder ``index``, in numbers of images.

    ``kept`` could not be looked at, so that the index still has them as they were. ``withheld`` would have
    been taken out, but are too many to go without leave. Of both, the first are named with the reason.
    ``unseen`` are images in the index whose files cannot be shown, with the reason: imported vectors need no
    files. ``remarks`` are sentences about what was assumed. ``left_out`` is what the sources passed over,
    ``sources`` the locations of all that the index has now. ``store`` searches it on this machine, for
    ``store_reason``.
    """

    index: Path
    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    kept: int = 0
    kept_first: tuple[Failure, ...] = ()
    withheld: int = 0
    withheld_first: tuple[Failure, ...] = ()
    failed: tuple[Failure, ...] = ()
    unseen: Sequence[Failure] = ()
    remarks: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    sources: tuple[str, ...] = ()
    store: str = ""
    store_reason: str = ""


def merged(found: Iterable[Sequence[LeftOut]]) -> tuple[LeftOut, ...]:
    """What several sources left out, added up where the reason is the same."""
    whole: dict[tuple[str, str], Counter[str]] = {}
    for item in itertools.chain.from_iterable(found):
        whole.setdefault((item.reason, item.advice), Counter()).update(item.counts)
    return tuple(LeftOut(reason=r, advice=a, counts=dict(counts)) for (r, a), counts in whole.items())
