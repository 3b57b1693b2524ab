"""What all judgements share: labels of candidates, schemas of replies, and what was understood of one.

`Reading.status`: a reply was understood whole (``ok``), in part (``repaired``) or not at all (``failed``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mmrerank.types import Assessment, Candidate, Component, Repairs

Status = Literal["ok", "repaired", "failed"]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def labels_for(n: int) -> tuple[str, ...]:
    """What ``n`` candidates are called in a prompt: letters up to 26 (a token each), then numbers."""
    return tuple(ALPHABET[:n]) if n <= len(ALPHABET) else tuple(str(i) for i in range(1, n + 1))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was understood from one reply; ``repairs`` is ready to be added up.

    ``scores`` are by id, where an order was given as numbers that fall along it.
    """

    status: Status
    components: tuple[Component, ...] = ()
    assessments: Mapping[str, Assessment] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    """Of an order that was told in scores: those, by id, on the scale that was asked for."""
    reason: str = ""
    repairs: Repairs = field(default_factory=Repairs)


def reading(status: Status, *, order_repairs: Repairs | None = None, **found: Any) -> Reading:
    """A `Reading` whose repairs count what its status says, and those of the order."""
    repairs = Repairs(failed=int(status == "failed"), repaired=int(status == "repaired"))
    return Reading(status=status, repairs=repairs + (order_repairs or Repairs()), **found)


def object_of(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object that has exactly these keys."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT: dict[str, Any] = {"type": "string"}


def shown(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Candidates as prompts show them: under their labels, each an image, a text or both."""
    labels = labels_for(len(candidates))
    return [{"label": n, "image": c.image, "text": c.text} for n, c in zip(labels, candidates, strict=True)]
