"""Tells who watches a ranking what its replies say, as they come: the one place where events are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mmrerank.errors import DATA_ERRORS
from mmrerank.events import Failed, Judged, OnEvent, OrderChanged, PartsFound
from mmrerank.messages import Ask, Reply, Said
from mmrerank.rerank.aggregate import by_value, keep_slots, verdict_sum
from mmrerank.rerank.understood import unreadable
from mmrerank.types import MAX_GRADE, Assessment, Component


@dataclass(kw_only=True)
class Telling:
    """The events of one ranking of ``ids``, the ``request``-th of its batch.

    Not safe for several threads: the driver calls it under its lock.
    """

    on_event: OnEvent
    ids: tuple[str, ...]
    request: int = 0
    _parts: set[tuple[Component, ...]] = field(default_factory=set)
    _values: dict[str, float] = field(default_factory=dict)
    _relevance: dict[str, float] = field(default_factory=dict)
    _judged: set[str] = field(default_factory=set)

    def asking(self, asks: Sequence[Ask]) -> None:
        """Takes note of what is asked next: the parts of the query stand in the questions."""
        for ask in asks:
            self._name(ask.components)

    def heard(self, ask: Ask, reply: Reply) -> None:
        """Tells what ``reply`` says."""
        if reply.found:
            known = set(self.ids)
            self.ids += tuple(c.id for c in reply.found if c.id not in known)
            return
        if reply.error is not None or (ask.useful is not None and not ask.useful(reply)):
            why = unreadable(reply) if reply.error is None else str(reply.error)
            self.on_event(Failed(request=self.request, ids=ask.shown, why=why))
            return
        said = _said(ask, reply)
        self._name(said.components)
        for id_, judged in said.judged.items():
            self._judge(id_, judged, said.relevance.get(id_))
        order = list(self.ids)
        if said.order:
            self._values.clear()
            self._relevance.clear()  # an order by comparison says more than numbers that came before
            known = set(self.ids)
            order = keep_slots(self.ids, [i for i in said.order if i in known])
        elif said.judged:
            order = by_value(self.ids, self._values)
        if tuple(order) != self.ids:
            self.ids = tuple(order)
            numbers = {"scores": dict(self._values), "relevance": dict(self._relevance)}
            self.on_event(OrderChanged(request=self.request, ids=self.ids, **numbers))

    def _name(self, components: tuple[Component, ...]) -> None:
        if components and components not in self._parts:
            self._parts.add(components)
            self.on_event(PartsFound(request=self.request, components=components))

    def _judge(self, id_: str, judged: Assessment | float, relevance: float | None) -> None:
        value = _value(judged) if isinstance(judged, Assessment) else float(judged)
        if isinstance(judged, Assessment) and relevance is None:
            relevance = value
        if value is not None:
            self._values[id_] = value
        if relevance is not None:
            self._relevance[id_] = relevance
        self._judged.add(id_)
        self.on_event(
            Judged(
                request=self.request,
                id=id_,
                assessment=judged if isinstance(judged, Assessment) else None,
                score=value,
                relevance=relevance,
                done=len(self._judged),
                of=max(len(self.ids), len(self._judged)),
            )
        )


def _said(ask: Ask, reply: Reply) -> Said:
    try:
        return Said() if ask.says is None else ask.says(reply)
    except DATA_ERRORS:  # whatever a reader of somebody's own raises: the method itself will say so
        return Said()


def _value(assessment: Assessment) -> float | None:
    """One number for a judgement in words, 0 to 1: its verdicts, else its grade."""
    found = verdict_sum(assessment)
    if found is None and assessment.grade is not None:
        found = assessment.grade / MAX_GRADE
    return found
