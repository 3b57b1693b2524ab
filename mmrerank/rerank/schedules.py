"""In which order candidates are compared: windows, passes and heaps, without a word about how.

Positions are indices into the first-stage order. A comparison that knows nothing leaves that order as it is,
so every schedule gives the first-stage order when all comparisons fail.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from mmrerank.messages import Ask, Reply

Asking = Generator[list[Ask], list[Reply], Any]
Best = Callable[[Sequence[int]], Generator[list[Ask], list[Reply], int]]
"""Asks which of some positions is best and returns that position (the first where nothing is known)."""


def windows(k: int, size: int, step: int) -> list[tuple[int, int]]:
    """Half-open windows over ``k`` places from the end to the head; the last one always starts at 0.

    >>> windows(25, 10, 5)
    [(15, 25), (10, 20), (5, 15), (0, 10)]
    """
    if not 1 <= step <= size:
        raise ValueError("a window's step is at least 1 and at most its size")
    found = []
    end = k
    while end > size:
        found.append((end - size, end))
        end -= step
    # what is left at the head is filled up to a whole window
    return [*found, (0, min(size, k))]


def heap_calls(k: int, top: int, arity: int) -> int:
    """The most comparisons that `heap_top` makes."""

    def sinks(n: int, start: int) -> int:
        count = 0
        while arity * start + 1 < n:
            start, count = arity * start + 1, count + 1
        return count

    building = sum(sinks(k, node) for node in range(k))
    return building + sum(sinks(k - taken, 0) for taken in range(1, min(top, k - 1)))


def heap_top(k: int, top: int, arity: int, best: Best) -> Generator[list[Ask], list[Reply], list[int]]:
    """The best ``top`` of ``k`` positions in order, the rest after them as they were: an ``arity``-ary heap.

    A comparison shows a position and its children (Setwise, arXiv 2310.09497).
    """
    heap = list(range(k))

    def sink(node: int) -> Asking:
        while arity * node + 1 < len(heap):
            children = range(arity * node + 1, min(arity * node + arity + 1, len(heap)))
            family = sorted(heap[n] for n in (node, *children))
            winner = yield from best(family)
            place = heap.index(winner)
            if place == node:
                return
            heap[node], heap[place] = heap[place], heap[node]
            node = place

    for node in range((k - 2) // arity, -1, -1) if k > 1 else ():
        yield from sink(node)
    found: list[int] = []
    while heap and len(found) < top:
        found.append(heap[0])
        last = heap.pop()
        if heap:
            heap[0] = last
            if len(found) < top:
                yield from sink(0)
    return [*found, *(n for n in range(k) if n not in set(found))]


def bubble_top(k: int, passes: int, best: Best) -> Generator[list[Ask], list[Reply], list[int]]:
    """``passes`` passes of neighbouring comparisons from the end to the head, each of which settles a place.

    The unsettled rest follows as it was (PRP-Sliding-K, arXiv 2306.17563).
    """
    order = list(range(k))
    for settled in range(min(passes, k - 1)):
        for place in range(k - 1, settled, -1):
            pair = order[place - 1 : place + 1]
            winner = yield from best(pair)
            if winner != pair[0]:
                order[place - 1 : place + 1] = pair[::-1]
    top = order[: passes if passes < k - 1 else k]
    return [*top, *(n for n in range(k) if n not in set(top))]


def insertion_calls(k: int, top: int, arity: int) -> int:
    """The most comparisons that `insertion_top` makes."""
    building = sum(range(1, min(top, k)))
    outside = max(k - top, 0)
    # at worst every candidate beyond the first is better than the last of the top and rises to its head
    return building + outside * (1 + max(min(top, k) - 1, 0))


def insertion_top(k: int, top: int, arity: int, best: Best) -> Generator[list[Ask], list[Reply], list[int]]:
    """The best ``top`` of ``k`` positions by insertion, the rest after them as they were.

    Goes by the first-stage order: while the last of the top holds against the next ``arity`` positions at
    once, one comparison settles all of them (Setwise Insertion, arXiv 2504.10509).
    """
    order: list[int] = []

    def insert(item: int, place: int) -> Asking:
        """Lets ``item``, which stands before ``place``, rise to where it belongs."""
        while place:
            winner = yield from best(sorted((order[place - 1], item)))
            if winner != item:
                break
            place -= 1
        order.insert(place, item)

    for item in range(min(top, k)):
        yield from insert(item, len(order))
    rest = list(range(min(top, k), k))
    while rest and order:
        group = rest[:arity]
        winner = yield from best(sorted((order[-1], *group)))
        if winner == order[-1]:
            rest = rest[len(group) :]
            continue
        # the others of the group are asked again, against the new last of the top
        rest.remove(winner)
        order.pop()
        yield from insert(winner, len(order))
    return [*order, *(n for n in range(k) if n not in set(order))]
