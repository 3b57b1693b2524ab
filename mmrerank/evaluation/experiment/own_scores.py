"""The scores of a reranked list in a run: the method's own numbers, so that what it found equal stays equal.

Some documents of a list have none: their question failed, they were not asked about, or they stand beyond the
head. Such a one stays where it is: between two that score differently it gets a score between theirs, between
two that score the same it gets that score, before the first or behind the last it is 1 further.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from mmrerank.benchmark import Ranked
from mmrerank.evaluation.measure.metrics import in_order


def with_scores(ids: Sequence[str], own: Mapping[str, float]) -> Ranked:
    """``ids``, best first, with scores that never rise: ``own`` ones where there are any.

    Without any, or where they contradict the order, ranks are counted down.

    >>> with_scores(["a", "b", "c", "d"], {"a": 3.0, "c": 1.0}).scores.tolist()
    [3.0, 2.0, 1.0, 0.0]
    """
    known = [n for n, i in enumerate(ids) if i in own]
    if not known or any(own[ids[a]] < own[ids[b]] for a, b in pairwise(known)):
        return Ranked.of(in_order(ids))
    first, last = known[0], known[-1]
    scores = [own[ids[first]] + first - n for n in range(first)]
    for start, end in pairwise(known):
        high, low = own[ids[start]], own[ids[end]]
        scores += [high - (high - low) * n / (end - start) for n in range(end - start)]
    scores += [own[ids[last]] - n for n in range(len(ids) - last)]
    return Ranked(ids, scores)
