"""What the rest of an evaluation will take: calls, images, tokens, time and money.

Queries that are finished say what a query costs. Before there are any, the method's own formula counts the
calls, and the method driven over a fake, for a few queries, counts the images; tokens and time are unknown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmrerank import registry
from mmrerank.budget import Price
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.durations import lasting
from mmrerank.evaluation.experiment.reranking import Item
from mmrerank.ports import Room
from mmrerank.rerank.drive import Driven, drive
from mmrerank.types import Usage

NOTHING: Mapping[str, str] = {}
_SAMPLE = 8  # queries that are driven over the fake


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What ``queries`` more queries will take, as far as ``measured`` (finished) ones, or none, can say.

    None is unknown. Without measured queries ``calls`` is an upper bound where the method stops early.
    """

    queries: int
    measured: int
    calls: int
    images: int
    input_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float | None = None
    money: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        if not self.calls:
            return f"{self.queries:,} queries left, without a call"
        parts = [f"{self.calls:,} calls", f"{self.images:,} images"]
        if self.input_tokens is not None:
            parts.append(f"{self.input_tokens:,} + {self.output_tokens:,} tokens")
        if self.seconds is not None:
            parts.append(f"about {lasting(self.seconds)}")
        if self.money is not None:
            parts.append(f"{self.money:,.2f} to pay")
        if not self.measured:
            parts.append("tokens and time not known yet")
        return f"{self.queries:,} queries left: {', '.join(parts)}"


def forecast(
    method: str,
    options: Any,
    left: Sequence[Item],
    finished: Collection[Usage],
    *,
    price: Price | None = None,
    auto: Mapping[str, str] = NOTHING,
) -> Forecast:
    """What ``left`` will take. ``options`` are the method's, ``finished`` what each finished query cost,
    ``auto`` as in `rehearsed`.

    Raises `UsageError` for an unknown method.
    """
    if finished and left:
        total = sum(finished, Usage())
        share = len(left) / len(finished)
        tokens = total.input_tokens * share, total.output_tokens * share
        return Forecast(
            queries=len(left),
            measured=len(finished),
            calls=round(total.calls * share),
            images=round(total.images * share),
            input_tokens=round(tokens[0]),
            output_tokens=round(tokens[1]),
            seconds=round(total.seconds * share, 1),
            money=None if price is None else round(price.of(*tokens), 4),
        )
    sample = left[:: max(1, len(left) // _SAMPLE)][:_SAMPLE]
    dry = sum((d.usage for d in rehearsed(method, options, sample, auto)), Usage())
    scale = len(left) / max(len(sample), 1)
    counted = [options.calls(len(r)) for _, r in left]
    known = [c for c in counted if c is not None]
    calls = sum(known) if len(known) == len(counted) else round(dry.calls * scale)
    free = calls == 0
    return Forecast(
        queries=len(left),
        measured=0,
        calls=calls,
        images=round(calls * dry.images / dry.calls) if dry.calls else 0,
        input_tokens=0 if free else None,
        output_tokens=0 if free else None,
        seconds=0.0 if free else None,
        money=0.0 if free and price is not None else None,
    )


def rehearsed(
    method: str, options: Any, items: Sequence[Item], auto: Mapping[str, str] = NOTHING
) -> list[Driven]:
    """The method driven over a fake that grades everything alike: asks no model.

    ``auto`` is what options that are left at ``auto`` mean for the model that will be asked.
    """
    module = registry.load("strategy", method)
    fake = Oracle(lambda query, id: 1)
    fake.room = Room(auto=auto)
    return drive([module.rank(q, r, options) for q, r in items], fake)
