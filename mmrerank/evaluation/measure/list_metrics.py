"""Metrics of one list in its own order, where image-search benchmarks differ from trec_eval.

INQUIRE's, CIRCO's and MMEB's. `metrics` gives them their names.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

from mmrerank.benchmark import Ranked

Judged = Mapping[str, int]
"""A query's relevance by document id; what is absent is 0."""
LIST_TIES = "the order of the list; equal scores by the run's rank column, then its line"


@dataclass(frozen=True, slots=True)
class Listed:
    """What a metric needs of one query: the grade of each listed document, and those of all judged ones.

    A document that is listed again has grade 0 there: it counts once. ``hits`` are the places, from 0, of
    relevant documents.
    """

    scores: Sequence[float]
    grades: Sequence[int]
    hits: Sequence[int]
    judged: Judged

    @classmethod
    def of(cls, ranked: Ranked, judged: Judged) -> Listed:
        """The list with its grades."""
        ids = ranked.ids
        grades = [judged.get(i, 0) for i in ids]
        if len(set(ids)) != len(ids):
            seen: set[str] = set()
            for n, i in enumerate(ids):
                if i in seen:
                    grades[n] = 0
                seen.add(i)
        hits = [n for n, grade in enumerate(grades) if grade > 0]
        return cls(ranked.scores, grades, hits, judged)

    @property
    def relevant(self) -> int:
        """R: how many documents are relevant, listed or not."""
        return sum(grade > 0 for grade in self.judged.values())

    def found(self, k: int | None) -> int:
        """How many relevant documents are among the first ``k``."""
        return len(self.hits) if k is None else bisect_left(self.hits, k)

    def best(self, k: int | None) -> int:
        """min(R, k); k is the length of the list without a cut-off."""
        return min(self.relevant, len(self.grades) if k is None else k)

    def groups(self, k: int | None) -> Iterator[tuple[int, int, int]]:
        """Where each group of equal scores begins and ends among the first ``k``, and its relevant ones."""
        length = len(self.grades) if k is None else min(k, len(self.grades))
        begin = 0
        for end in range(1, length + 1):
            if end == length or self.scores[end] != self.scores[begin]:
                yield begin, end, bisect_left(self.hits, end) - bisect_left(self.hits, begin)
                begin = end


@cache
def _discounts(length: int) -> Sequence[float]:
    """The sum of 1 / log2(place + 2) over the first n places, for n up to ``length``."""
    return tuple(accumulate((1 / math.log2(n + 2) for n in range(length)), initial=0.0))


def inquire_ap(listed: Listed, k: int | None) -> float:
    """INQUIRE's average precision: scikit-learn's over the list, times its hits, over min(R, k).

    Tied documents enter together, so that the value may lie above that of every order of them. R counts
    every relevant document, listed or not. Without ``k``, it is the length of the list. Source:
    inquire-benchmark/INQUIRE, src/metrics.py, commit 4473f3f.
    """
    total, found = 0.0, 0
    for _, end, hits in listed.groups(k):
        if hits:
            found += hits
            total += found * hits / end
    return total / best if (best := listed.best(k)) else 0.0


def inquire_ndcg(listed: Listed, k: int | None) -> float:
    """INQUIRE's nDCG: binary gain, log2 discount; tied documents share their mean gain (scikit-learn).

    As in the benchmark's scripts the list is cut at ``k`` before anything is computed. Unlisted relevant
    documents count in the ideal only, whatever the scores are: INQUIRE gives them the score -100, which a
    scorer may undercut. Source as `inquire_ap`; McSherry & Najork 2008 for ties.
    """
    upto = _discounts(len(listed.grades))
    gain = sum(
        hits * (upto[end] - upto[begin]) / (end - begin) for begin, end, hits in listed.groups(k) if hits
    )
    best = listed.best(k)
    return gain / _discounts(best)[best] if best else 0.0


def reciprocal_rank(listed: Listed, k: int | None) -> float:
    """One over the rank of the first relevant document within ``k``, 0 without any, in list order."""
    first = listed.hits[0] if listed.hits else None
    return 0.0 if first is None or (k is not None and first >= k) else 1 / (first + 1)


def ap_min(listed: Listed, k: int | None) -> float:
    """Precision at each relevant document within ``k``, summed, over min(R, k); each document once.

    CIRCO's AP@k and, for lists without repetitions, MMEB's. Source: miccunifi/CIRCO, src/evaluation.py.
    """
    total = sum(found / (place + 1) for found, place in enumerate(listed.hits[: listed.found(k)], start=1))
    return total / best if (best := listed.best(k)) else 0.0


def hit(listed: Listed, k: int | None) -> float:
    """1 when a relevant document is within the first ``k``, else 0, in list order."""
    return float(listed.found(k) > 0)


def list_recall(listed: Listed, k: int | None) -> float:
    """The share of the relevant documents that are within the first ``k``, in list order."""
    return listed.found(k) / total if (total := listed.relevant) else 0.0


def list_precision(listed: Listed, k: int | None) -> float:
    """Relevant documents within the first ``k``, over ``k``, each counted once, in list order."""
    size = len(listed.grades) if k is None else k
    return listed.found(k) / size if size else 0.0


def list_f1(listed: Listed, k: int | None) -> float:
    """The harmonic mean of `list_precision` and `list_recall`."""
    p, r = list_precision(listed, k), list_recall(listed, k)
    return 2 * p * r / (p + r) if p + r else 0.0


def list_ndcg(gain: Callable[[int], float]) -> Callable[[Listed, int | None], float]:
    """NDCG in list order with the gain that ``gain`` makes of a grade."""

    def compute(listed: Listed, k: int | None) -> float:
        total = sum(
            gain(listed.grades[place]) / math.log2(place + 2) for place in listed.hits[: listed.found(k)]
        )
        best = sorted((gain(v) for v in listed.judged.values() if v > 0), reverse=True)[:k]
        ideal = sum(g / math.log2(n + 2) for n, g in enumerate(best))
        return total / ideal if ideal else 0.0

    return compute
