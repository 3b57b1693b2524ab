"""What a run did to an index. Pure data."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmrerank.types import LeftOut


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A source (its id) that is not in the index, and why."""

    source: str
    error: str


FIRST = 20
"""So many of the images that stayed are named: of a drive that is away there may be millions."""


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a run did to the index in folder ``index``, in numbers of images.

    ``kept`` could not be looked at, so that the index still has them as they were. ``withheld`` would have
    been taken out, but are too many to go without leave. Of both, the first are named with the reason.
    ``unseen`` are images in the index whose files cannot be shown, with the reason: imported vectors need no
    files. ``remarks`` are sentences about what was assumed. ``left_out`` is what the sources passed over,
    ``sources`` the locations of all that the index has now.
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
    unseen: tuple[Failure, ...] = ()
    remarks: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    sources: tuple[str, ...] = ()


def merged(found: Iterable[Sequence[LeftOut]]) -> tuple[LeftOut, ...]:
    """What several sources left out, added up where the reason is the same."""
    whole: dict[tuple[str, str], Counter[str]] = {}
    for item in itertools.chain.from_iterable(found):
        whole.setdefault((item.reason, item.advice), Counter()).update(item.counts)
    return tuple(LeftOut(reason=r, advice=a, counts=dict(counts)) for (r, a), counts in whole.items())
