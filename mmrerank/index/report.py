"""What a run did to an index. Pure data."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmrerank.types import LeftOut


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A source (its id) that is not in the index, and why."""

    source: str
    error: str


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a run did to the index in folder ``index``, in numbers of images.

    ``unseen`` are images in the index whose files cannot be shown, with the reason: imported vectors need no
    files. ``remarks`` are sentences about what was assumed. ``left_out`` is what the sources passed over,
    ``sources`` the locations of all that the index has now.
    """

    index: Path
    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
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
