"""How far an approximate store has to look: measured when it is built, against the exact answers.

The queries are rows moved by the difference of two others, near and far, so that they lie where vectors lie
and are none of them. The settings that cost least among those that find enough are taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrerank.index.stores._order import Blocks
from mmrerank.index.stores._reduced import sample
from mmrerank.index.stores._scan import scan
from mmrerank.ports import Rows, Vectors

TARGET = 0.97
"""The share of the true nearest that is to be found; a little above the 0.95 that is promised, for the
queries of a user are others than those of the measurement."""
DEPTHS = (10, 100)
"""The numbers of results that are tuned for."""
_QUERIES = 256
REFINE = (2, 4, 8, 16, 32)
"""Proposals scored again for each wanted result, where they are asked for apart from the effort."""
_LOOKED, _SCORED = 0.005, 1.2
"""What a row that is looked at costs, and one that is scored with its true vector, in microseconds."""
_FULL = 0.25
"""No more than this share of the rows is looked at: an exact store costs little more."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """For ``k`` results: how much is looked at (``effort``: lists, or places in a graph), and ``proposals``
    that are scored again. ``recall`` is the share of the true ``k`` nearest that it found.
    """

    k: int
    effort: int
    proposals: int
    recall: float

    def for_more(self, k: int) -> Setting:
        """The same for more results than were tuned for."""
        times = max(1.0, k / self.k)
        return dataclasses.replace(
            self, k=k, effort=round(self.effort * times), proposals=round(self.proposals * times)
        )


Propose = Callable[[Vectors, int, int], NDArray[np.int64]]
"""Row numbers ``(q, proposals)``, likeliest first, of queries ``(q, d)``, for an effort."""


def tune(
    vectors: Vectors | Rows, propose: Propose, efforts: Sequence[int], rows_an_effort: float, *, apart: bool
) -> tuple[Setting, ...]:
    """A setting for each of `DEPTHS`. ``efforts`` ascend; one looks at ``rows_an_effort`` rows.

    Without ``apart`` an effort gives as many proposals, and all of them are scored again.
    """
    queries = _queries(vectors)
    true = scan(Blocks(vectors), queries, max(DEPTHS))[1]
    n = len(vectors)
    best: dict[int, tuple[bool, float, Setting]] = {}
    for number, effort in enumerate(efforts):
        if number and effort * rows_an_effort > _FULL * n:
            break
        found = propose(queries, effort, min(n, max(DEPTHS) * REFINE[-1] if apart else effort))
        at = places(true, found)
        for k in DEPTHS:
            for count in [min(n, k * times) for times in REFINE] if apart else [max(k, effort)]:
                recall = float((at[:, :k] < min(count, found.shape[1])).mean())
                cost = effort * rows_an_effort * _LOOKED + count * _SCORED
                setting = Setting(k=k, effort=effort, proposals=count, recall=round(recall, 4))
                enough = recall >= TARGET
                # the cheapest of those that find enough, else the one that finds most
                rank = (enough, -cost if enough else recall, setting)
                if k not in best or rank[:2] > best[k][:2]:
                    best[k] = rank
        if all(best[k][0] for k in DEPTHS) and effort * rows_an_effort * _LOOKED > _dearest(best):
            break
    return tuple(best[k][2] for k in DEPTHS)


def _dearest(best: Mapping[int, tuple[bool, float, Setting]]) -> float:
    return max(-cost for _, cost, _ in best.values())


def places(true: NDArray[np.int64], found: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of the ``true`` rows ``(q, k)`` stands among those ``found`` ``(q, any)``; behind the last
    where it does not.
    """
    count = found.shape[1]
    at = np.full(true.shape, count, dtype=np.int64)
    for line, wanted, given in zip(at, true, found, strict=True):
        order = np.argsort(given)
        near = order[np.minimum(np.searchsorted(given, wanted, sorter=order), count - 1)]
        there = given[near] == wanted
        line[there] = near[there]
    return at


def _queries(vectors: Vectors | Rows) -> Vectors:
    rows = sample(vectors, 3 * _QUERIES)
    rows = rows[np.random.default_rng(1).permutation(len(rows))]
    count = len(rows) // 3
    moved, plus, minus = rows[:count], rows[count : 2 * count], rows[2 * count : 3 * count]
    far = np.where(np.arange(count) % 2, 0.25, 0.5).astype(np.float32)[:, None]
    queries = moved + far * (plus - minus)
    length = np.linalg.norm(queries, axis=1, keepdims=True)
    return np.ascontiguousarray(queries / np.where(length > 0, length, 1))


def as_json(settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """The settings, ready for JSON."""
    return [dataclasses.asdict(s) for s in settings]


def parsed(found: Any, most: int) -> tuple[Setting, ...]:
    """The settings from JSON. Raises `ValueError` for what are none, or exceed ``most``."""
    if not isinstance(found, list) or [s.get("k") for s in found if isinstance(s, dict)] != list(DEPTHS):
        raise ValueError("its settings are of other depths")
    settings = []
    for each in found:
        if set(each) != {"k", "effort", "proposals", "recall"}:
            raise ValueError("its settings have other fields")
        for name in ("effort", "proposals"):
            if type(each[name]) is not int or not 1 <= each[name] <= most:
                raise ValueError(f"{name} is not between 1 and {most}")
        if type(each["recall"]) not in (int, float) or not 0 <= each["recall"] <= 1:
            raise ValueError("recall is not between 0 and 1")
        settings.append(Setting(**each))
    return tuple(settings)
