"""The best path through all items: a ranking as a travelling salesman's open tour (TSPRank).

Exact by dynamic programming (Held and Karp 1962) up to `EXACT` items; beyond that the better of a greedy
insertion and a given start, mended by moving and turning stretches until nothing improves.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

EXACT = 12
_LEAST = 1e-12  # a gain that is not rounding

Edges = NDArray[np.float64]


def worth(edges: Edges, path: Sequence[int]) -> float:
    """Sum of the edges from each item of ``path`` to the next."""
    return float(sum(edges[a, b] for a, b in pairwise(path)))


def best_path(edges: Edges, start: Sequence[int] = ()) -> list[int]:
    """Items in the order of the heaviest path, ``edges[i, j]`` being the worth of ``i`` right before ``j``.

    ``edges`` (n, n) must be finite off the diagonal. ``start`` is an order to begin with when n is too large
    to be exact. Of equally heavy paths the one that is kept is arbitrary: weigh edges a little by the
    order wanted among equals.
    """
    n = len(edges)
    if n < 2:
        return list(range(n))
    if n <= EXACT:
        return held_karp(edges)
    greedy = _mended(edges, _inserted(edges))
    given = _mended(edges, list(start)) if start else greedy
    return given if worth(edges, given) >= worth(edges, greedy) - _LEAST else greedy


def held_karp(edges: Edges) -> list[int]:
    """The heaviest path, exactly: 2^n times n^2 steps."""
    n = len(edges)
    full = 1 << n
    best = np.full((full, n), -np.inf)
    came = np.zeros((full, n), dtype=np.int64)
    for item in range(n):
        best[1 << item, item] = 0.0
    members = [[i for i in range(n) if mask >> i & 1] for mask in range(full)]
    for mask in range(1, full):
        inside = members[mask]
        if len(inside) < 2:
            continue
        for last in inside:
            before = [i for i in inside if i != last]
            values = best[mask ^ (1 << last), before] + edges[before, last]
            top = int(values.argmax())
            best[mask, last], came[mask, last] = values[top], before[top]
    mask, last = full - 1, int(best[full - 1].argmax())
    path = [last]
    while len(path) < n:
        mask, last = mask ^ (1 << last), int(came[mask, last])
        path.append(last)
    return path[::-1]


def _inserted(edges: Edges) -> list[int]:
    """Each item where it adds most, in the order given."""
    path = [0]
    for item in range(1, len(edges)):
        gains = [edges[item, path[0]]]
        gains += [edges[a, item] + edges[item, b] - edges[a, b] for a, b in pairwise(path)]
        gains.append(edges[path[-1], item])
        path.insert(int(np.argmax(gains)), item)
    return path


def _mended(edges: Edges, path: list[int]) -> list[int]:
    """Or-opt (a stretch of up to three items moves) and 2-opt (a stretch turns) while they gain."""
    n = len(path)
    # a border of zeros: before the first item and after the last there is nothing to gain or to lose
    wide = np.zeros((n + 1, n + 1))
    wide[:n, :n] = edges
    improved = True
    while improved:
        improved = _moved(wide, path) or _turned(wide, path)
    return path


def _moved(wide: Edges, path: list[int]) -> bool:
    n = len(path)
    for length in (1, 2, 3):
        for at in range(n - length + 1):
            piece = path[at : at + length]
            rest = np.array([n, *path[:at], *path[at + length :], n])
            before = path[at - 1] if at else n
            after = path[at + length] if at + length < n else n
            lost = wide[before, piece[0]] + wide[piece[-1], after] - wide[before, after]
            a, b = rest[:-1], rest[1:]
            gains = wide[a, piece[0]] + wide[piece[-1], b] - wide[a, b]
            place = int(gains.argmax())
            if gains[place] > lost + _LEAST:
                kept = [int(i) for i in rest[1:-1]]
                path[:] = [*kept[:place], *piece, *kept[place:]]
                return True
    return False


def _turned(wide: Edges, path: list[int]) -> bool:
    n = len(path)
    line = np.array([n, *path, n])
    ahead = np.concatenate([[0.0], np.cumsum(wide[line[:-1], line[1:]])])
    back = np.concatenate([[0.0], np.cumsum(wide[line[1:], line[:-1]])])
    for i in range(1, n):
        j = np.arange(i + 1, n + 1)  # turn line[i..j]
        before, first = line[i - 1], line[i]
        now = wide[before, first] + (ahead[j] - ahead[i]) + wide[line[j], line[j + 1]]
        then = wide[before, line[j]] + (back[j] - back[i]) + wide[first, line[j + 1]]
        gains = then - now
        best = int(gains.argmax())
        if gains[best] > 1e-9:  # sums of many edges carry more rounding
            path[i - 1 : int(j[best])] = path[i - 1 : int(j[best])][::-1]
            return True
    return False
