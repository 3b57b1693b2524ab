"""What happens while images are searched and ranked, as values: for `ImageSearch.stream` and ``on_event``.

Pure data. Every event has ``request``, the place of its query in a batch, and `to_dict`, ready for JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mmrerank.results import SearchResult, assessment_dict, component_dict, hit_dict
from mmrerank.types import Assessment, Component, Hit


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened. ``name`` is its kind in one word."""

    name: ClassVar[str] = "event"
    request: int = 0
    """Place of the query in its batch; 0 for a single one."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {"event": self.name, "request": self.request, **self._fields()}

    def _fields(self) -> dict[str, Any]:
        return {}


OnEvent = Callable[[Event], None]
"""Called with each event, one at a time, from the thread that ranks; what it raises ends the ranking."""


@dataclass(frozen=True, kw_only=True)
class Searched(Event):
    """The first stage has answered. ``hits`` are what it would show without a method, best first."""

    name: ClassVar[str] = "searched"
    hits: tuple[Hit, ...]

    def _fields(self) -> dict[str, Any]:
        return {"hits": [hit_dict(h) for h in self.hits]}


@dataclass(frozen=True, kw_only=True)
class PartsFound(Event):
    """The parts of the query that images are judged against from now on."""

    name: ClassVar[str] = "parts"
    components: tuple[Component, ...]

    def _fields(self) -> dict[str, Any]:
        return {"components": [component_dict(c) for c in self.components]}


@dataclass(frozen=True, kw_only=True)
class Judged(Event):
    """An image was judged, in words or by a number (higher is better); ``done`` of ``of`` images are.

    ``relevance`` is from 0 to 1, None where the method knows none of a single image.
    """

    name: ClassVar[str] = "judged"
    id: str
    assessment: Assessment | None = None
    score: float | None = None
    relevance: float | None = None
    done: int
    of: int

    def _fields(self) -> dict[str, Any]:
        told = assessment_dict(self.assessment)
        numbers = {"score": self.score, "relevance": self.relevance, "done": self.done, "of": self.of}
        return {"id": self.id, **told, **numbers}


@dataclass(frozen=True, kw_only=True)
class OrderChanged(Event):
    """The order by what is known so far, best first. It is provisional: `Done` has the method's own.

    ``scores`` and ``relevance`` are the numbers so far by id; images without one stand at their old places.
    """

    name: ClassVar[str] = "order"
    ids: tuple[str, ...]
    scores: Mapping[str, float] = field(default_factory=dict)
    relevance: Mapping[str, float] = field(default_factory=dict)

    def _fields(self) -> dict[str, Any]:
        return {"ids": list(self.ids), "scores": dict(self.scores), "relevance": dict(self.relevance)}


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """A question about ``ids`` brought nothing, and why. It may be asked again in another form."""

    name: ClassVar[str] = "failed"
    ids: tuple[str, ...]
    why: str

    def _fields(self) -> dict[str, Any]:
        return {"ids": list(self.ids), "why": self.why}


@dataclass(frozen=True, kw_only=True)
class Done(Event):
    """The end: the result, as `ImageSearch.search` or `Reranker.rank` return it."""

    name: ClassVar[str] = "done"
    result: SearchResult

    def _fields(self) -> dict[str, Any]:
        return {"result": self.result.to_dict()}
