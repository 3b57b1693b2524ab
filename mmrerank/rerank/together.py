"""Several judgings as one: their open questions stand in one round, so that they share a model's batch."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from mmrerank.messages import Ask, Reply
from mmrerank.ports import Judging, Outcome


def together(judgings: Sequence[Judging]) -> Generator[list[Ask], list[Reply], list[Outcome]]:
    """Runs all of ``judgings`` to their ends and returns their outcomes in the same order."""
    outcomes: dict[int, Outcome] = {}
    asks: dict[int, list[Ask]] = {}

    def advance(n: int, replies: list[Reply] | None) -> None:
        try:
            asks[n] = judgings[n].send(replies)  # type: ignore[arg-type] # None starts a generator
        except StopIteration as stop:
            outcomes[n] = stop.value
            asks.pop(n, None)

    for n in range(len(judgings)):
        advance(n, None)
    while asks:
        replies = iter((yield [ask for mine in asks.values() for ask in mine]))
        for n, mine in list(asks.items()):
            advance(n, [next(replies) for _ in mine])
    return [outcomes[n] for n in range(len(judgings))]
