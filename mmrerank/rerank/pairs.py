"""Pairs asked in both orders, so that a model that only likes a position says nothing.

The preference is the mean of P(first is better) over both orders: a contradiction counts half by itself.
Without log-probabilities the letter is written, and agreement counts 1, contradiction a half.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from math import exp

import numpy as np

from mmrerank.messages import Ask, Reply
from mmrerank.rerank import comparisons
from mmrerank.rerank.aggregate import Preferences
from mmrerank.types import Candidate, Query

Pair = tuple[int, int]


class Pairs:
    """Compares places of a list of candidates; ``failed`` counts the replies that said nothing.

    ``compared`` are the candidates of which a pair was answered in both orders.
    """

    def __init__(
        self, query: Query, images: Sequence[Candidate], *, written: bool = False, image_tokens: int = 256
    ) -> None:
        self.failed = 0
        self.compared: set[str] = set()
        self._query, self._images = query, images
        self._written, self._tokens = written, image_tokens

    def ask(self, pairs: Sequence[Pair]) -> Generator[list[Ask], list[Reply], list[float | None]]:
        """For each pair P(first is better), averaged over both orders; None where one was not answered.

        One order alone may hold nothing but a liking for its first or second place.
        """
        asks = [self._question(a, b) for one, other in pairs for a, b in ((one, other), (other, one))]
        replies = yield asks
        read = [self._chances(r, a) for a, r in zip(asks, replies, strict=True)]
        self.failed += sum(not r for r in read)
        found: list[float | None] = []
        for n, (one, other) in enumerate(pairs):
            both = [r[self._images[one].id] for r in read[2 * n : 2 * n + 2] if r]
            # equal preferences must not differ by the order in which they were added up
            found.append(round(sum(both) / 2, 9) if len(both) == 2 else None)
            self.compared |= {self._images[n].id for n in (one, other)} if len(both) == 2 else set()
        return found

    def matrix(self, k: int, pairs: Sequence[Pair]) -> Generator[list[Ask], list[Reply], Preferences]:
        """The preferences of ``pairs`` as ``(k, k)``, NaN where nothing is known."""
        found = yield from self.ask(pairs)
        p = np.full((k, k), np.nan)
        for (one, other), value in zip(pairs, found, strict=True):
            if value is not None:
                p[one, other], p[other, one] = value, round(1 - value, 9)
        return p

    def best(self, places: Sequence[int]) -> Generator[list[Ask], list[Reply], int]:
        """The best of ``places``, compared one after the other; the earlier where nothing is known."""
        winner = places[0]
        for other in places[1:]:
            (p,) = yield from self.ask([(winner, other)])
            winner = other if p is not None and p < 0.5 else winner
        return winner

    def _question(self, one: int, other: int) -> Ask:
        ask = comparisons.prefer(
            self._query, self._images[one], self._images[other], image_tokens=self._tokens
        )
        return comparisons.written(ask) if self._written else ask

    def _chances(self, reply: Reply, ask: Ask) -> dict[str, float]:
        """P(it is better) by id, or nothing."""
        if not self._written:
            return {i: exp(v) for i, v in comparisons.read_letters(reply, ask).items()}
        best, _ = comparisons.read_best(reply, ask)
        return {} if best is None else {i: float(i == best) for i in ask.shown}
